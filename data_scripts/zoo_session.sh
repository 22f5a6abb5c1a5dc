#!/usr/bin/env bash
# One session of training on a machine that is yours for some minutes and has no network:
#   bash data_scripts/zoo_session.sh PARTS WORK OUT [options of train_zoo.py]
# PARTS holds what came along of the part*.tar files of pack_pool.py, this time or earlier. WORK outlives the session and
# holds pool, checkpoints and weights; call again and the queue goes on. OUT gets every finished run, in half precision with
# its log, as zoo.tar.00, zoo.tar.01, ... of at most 15 MB: join them with `cat zoo.tar.* | tar x`.
set -euo pipefail
usage="usage: zoo_session.sh PARTS WORK OUT [options of train_zoo.py]"
parts=${1:?$usage} work=${2:?$usage} out=${3:?$usage}
shift 3
python=${PYTHON:-python3}
repository=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH="$repository${PYTHONPATH:+:$PYTHONPATH}" # the package need not be installed there
mkdir -p "$work/pool" "$work/export" "$out"
for part in "$parts"/part*.tar; do
    if [ -f "$part" ]; then tar xf "$part" -C "$work/pool"; fi
done
if [ ! -f "$work/pool/pool.csv" ]; then
    echo "no pool.csv yet: bring the other parts" >&2
    exit 0
fi
status=0
"$python" "$repository/data_scripts/train_zoo.py" "$work/pool/pool.csv" "$work/zoo" --export "$work/export" "$@" || status=$?
rm -f "$out"/zoo.tar.*
tar cf - -C "$work/export" . | split --bytes 15000000 --numeric-suffixes - "$out/zoo.tar."
exit $status
