// A picture that can be clicked or drawn on. Coordinates are pixels of the picture.
function render({ model, el }) {
  const canvas = document.createElement("canvas");
  canvas.className = "hdnet-picture";
  canvas.style.cssText = "max-width: 100%; touch-action: none; cursor: crosshair; display: block;";
  canvas.setAttribute("role", "img");
  el.appendChild(canvas);
  const context = canvas.getContext("2d");
  let image = null;
  let drawing = []; // points of the stroke that is not finished; a polygon's are the model's corners

  function load() {
    const bytes = model.get("image");
    if (!bytes || bytes.byteLength === 0) {
      image = null;
      canvas.width = canvas.height = 0;
      return;
    }
    const address = URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
    const loaded = new Image();
    loaded.onload = () => {
      image = loaded;
      URL.revokeObjectURL(address);
      draw();
    };
    loaded.src = address;
  }

  function trace(shape) {
    context.beginPath();
    shape.points.forEach(([x, y], index) => (index ? context.lineTo(x, y) : context.moveTo(x, y)));
  }

  function paint(shape, finished) {
    const color = shape.kind === "eraser" ? "rgb(90, 90, 90)" : "rgb(255, 212, 0)";
    context.globalAlpha = 0.5;
    context.fillStyle = context.strokeStyle = color;
    if (shape.kind === "polygon") {
      trace(shape);
      if (finished) context.fill();
      context.globalAlpha = 1;
      context.lineWidth = 2;
      if (finished) context.closePath();
      context.stroke();
      if (!finished) shape.points.forEach(([x, y]) => context.fillRect(x - 3, y - 3, 6, 6));
    } else if (shape.points.length) {
      trace({ points: shape.points.length > 1 ? shape.points : [...shape.points, shape.points[0]] });
      context.lineWidth = shape.size;
      context.lineCap = context.lineJoin = "round";
      context.stroke();
    }
    context.globalAlpha = 1;
  }

  function draw() {
    if (!image) return;
    canvas.width = image.naturalWidth;
    canvas.height = image.naturalHeight;
    context.drawImage(image, 0, 0);
    model.get("shapes").forEach((shape) => paint(shape, true));
    const points = model.get("mode") === "polygon" ? model.get("corners") : drawing;
    if (points.length) paint({ kind: model.get("mode"), points, size: model.get("size") }, false);
  }

  function finish(points) {
    const shape = { kind: model.get("mode"), points, size: model.get("size") };
    drawing = [];
    model.set("shapes", [...model.get("shapes"), shape]);
    model.set("corners", []);
    model.save_changes();
    draw();
  }

  function at(event) {
    const box = canvas.getBoundingClientRect();
    const x = ((event.clientX - box.left) * canvas.width) / box.width;
    const y = ((event.clientY - box.top) * canvas.height) / box.height;
    return [Math.round(x * 10) / 10, Math.round(y * 10) / 10];
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    const mode = model.get("mode");
    const point = at(event);
    if (mode === "click") {
      model.set("clicked", point);
      model.save_changes();
    } else if (mode === "polygon") {
      const corners = model.get("corners");
      const [x, y] = corners[0] ?? point;
      if (corners.length > 2 && Math.hypot(x - point[0], y - point[1]) < 10) return finish(corners);
      model.set("corners", [...corners, point]);
      model.save_changes();
    } else if (mode === "brush" || mode === "eraser") {
      canvas.setPointerCapture(event.pointerId);
      drawing = [point];
      draw();
    }
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!event.buttons) return;
    const mode = model.get("mode");
    if ((mode === "brush" || mode === "eraser") && drawing.length) {
      drawing.push(at(event));
      draw();
    }
  });
  canvas.addEventListener("pointerup", () => {
    const mode = model.get("mode");
    if ((mode === "brush" || mode === "eraser") && drawing.length) finish(drawing);
  });

  const forget = () => {
    drawing = [];
    draw();
  };
  canvas.addEventListener("pointercancel", forget);

  const label = () => canvas.setAttribute("aria-label", model.get("label"));
  model.on("change:image", () => {
    drawing = [];
    load();
  });
  model.on("change:shapes", draw);
  model.on("change:corners", draw);
  model.on("change:mode", forget);
  model.on("change:label", label);
  label();
  load();
}

export default { render };
