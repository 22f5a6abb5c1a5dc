import psutil
import pytest
import torch
from conftest import check_gradients
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from hdnet_lib import create_model
from hdnet_lib.model import streaming
from hdnet_lib.model.local_dynamic import LocalDynamic
from hdnet_lib.model.streaming import StreamingLocalDynamic, nearest_neighbors
from hdnet_lib.model.variants import ReleasedLocalDynamic
from hdnet_lib.registry import LOCAL_DYNAMICS

CHANNELS, SIDE = 6, 5


def case(seed, k=1, batch=1, dtype=torch.float32):
    torch.manual_seed(seed)
    feature = torch.randn(batch, CHANNELS, SIDE, SIDE, dtype=dtype)
    mask = (torch.rand(batch, 1, SIDE, SIDE) < 0.4).to(dtype)
    mask[:, :, 0, 0], mask[:, :, -1, -1] = 1, 0  # both regions in every image
    return LocalDynamic(CHANNELS, k).to(dtype), feature, mask


@torch.no_grad()
def by_hand(module, feature, mask):
    """Eq. 2 to 5, one foreground position at a time."""
    result = feature.clone()
    for image, region, out in zip(feature, mask[:, 0], result, strict=True):
        background = [image[:, y, x] for y in range(SIDE) for x in range(SIDE) if region[y, x] < 0.5]
        for y, x in region.nonzero().tolist():
            cosines = torch.stack([F.cosine_similarity(image[:, y, x], other, dim=0) for other in background])
            values, chosen = cosines.topk(min(module.k, len(background)))
            alpha = values.softmax(dim=0)
            reference = sum(a * background[i] for a, i in zip(alpha, chosen.tolist(), strict=True))
            pair = torch.cat([reference, image[:, y, x]])
            out[:, y, x] = module.adaptive.weight[:, :, 0] @ pair + module.adaptive.bias
    return result


@given(seed=st.integers(0, 10**6), k=st.integers(1, 9), batch=st.integers(1, 3))
def test_equals_the_equations_worked_position_by_position(seed, k, batch):
    module, feature, mask = case(seed, k, batch, torch.float64)
    torch.testing.assert_close(module(feature, mask), by_hand(module, feature, mask))


@given(seed=st.integers(0, 10**6), k=st.integers(1, 9))
def test_background_features_are_untouched(seed, k):
    module, feature, mask = case(seed, k)
    background = (mask == 0).expand_as(feature)
    assert torch.equal(module(feature, mask)[background], feature[background])


@given(seed=st.integers(0, 10**6), k=st.integers(1, 5))
def test_permuting_background_positions_changes_nothing(seed, k):
    module, feature, mask = case(seed, k, dtype=torch.float64)
    background = (mask.flatten() == 0).nonzero().flatten()
    shuffled = background[torch.randperm(len(background))]
    permuted = feature.flatten(2).clone()
    permuted[..., background] = permuted[..., shuffled]
    foreground = (mask == 1).expand_as(feature)
    after = module(permuted.view_as(feature), mask)
    torch.testing.assert_close(after[foreground], module(feature, mask)[foreground])


@given(seed=st.integers(0, 10**6))
def test_with_one_neighbour_the_reference_is_a_background_feature(seed):
    module, feature, mask = case(seed)
    reference = module.reference(feature, module.match(feature, mask))[0]  # (C, N)
    background = feature.flatten(2)[0][:, (mask.flatten() == 0)]
    distances = torch.cdist(reference.T, background.T, compute_mode="donot_use_mm_for_euclid_dist")
    assert distances.min(dim=1).values.max() == 0


@given(seed=st.integers(0, 10**6), k=st.integers(1, 40))
def test_weights_sum_to_one_and_only_background_counts(seed, k):
    module, feature, mask = case(seed, k)
    matches = module.match(feature, mask)
    torch.testing.assert_close(matches.weights.sum(2), torch.ones(1, SIDE * SIDE))
    chosen = matches.background[0][matches.indices[0]]
    assert (matches.weights[0][~chosen] == 0).all()
    assert (matches.weights[0][chosen] > 0).all()


@pytest.mark.parametrize("value", [0.0, 1.0], ids=["no foreground", "no background"])
def test_passes_unchanged_without_one_of_the_regions(value):
    module, feature, _ = case(0, k=3)
    feature.requires_grad_()
    result = module(feature, torch.full((1, 1, SIDE, SIDE), value))
    assert torch.equal(result, feature)
    result.sum().backward()
    assert feature.grad.isfinite().all()


def test_mixed_batch_treats_each_image_on_its_own():
    module, feature, mask = case(1, k=2, batch=3)
    mask[0], mask[1] = 0, 1
    for index in range(3):
        alone = module(feature[index : index + 1], mask[index : index + 1])
        torch.testing.assert_close(module(feature, mask)[index : index + 1], alone)


def test_object_that_vanishes_at_feature_size_changes_nothing():
    module, feature, _ = case(0)
    mask = torch.zeros(1, 1, 8 * SIDE, 8 * SIDE)
    mask[0, 0, 4, 4] = 1  # nearest neighbour looks at rows and columns 0, 8, 16, ...
    assert torch.equal(module(feature, mask), feature)


@pytest.mark.slow
def test_gradients():
    module, feature, mask = case(3, k=3, batch=2, dtype=torch.float64)
    check_gradients(module, feature, mask)


def test_released_formulation_differs_and_keeps_the_background():
    torch.manual_seed(0)
    feature, mask = torch.randn(2, CHANNELS, SIDE, SIDE), torch.zeros(2, 1, SIDE, SIDE)
    mask[..., :2, :] = 1
    paper, released = LocalDynamic(CHANNELS), ReleasedLocalDynamic(CHANNELS)
    released.load_state_dict(paper.state_dict())
    assert not torch.allclose(paper(feature, mask), released(feature, mask))
    assert torch.equal(released(feature, mask)[..., 2:, :], feature[..., 2:, :])


@pytest.mark.parametrize("k", [1, 3])
def test_released_formulation_equals_its_description_worked_one_image_at_a_time(k):
    torch.manual_seed(1)
    feature, mask = torch.randn(2, CHANNELS, SIDE, SIDE), torch.zeros(2, 1, SIDE, SIDE)
    mask[..., :2, :] = 1
    module = ReleasedLocalDynamic(CHANNELS, k)
    for image, region, result in zip(feature, mask, module(feature, mask), strict=True):
        query, support = (image * region).flatten(1), (image * (1 - region)).flatten(1)
        values, indices = (query.T @ support).topk(k, dim=1)
        weights = values.flatten().view(k, -1).softmax(dim=1)
        chosen = support[:, indices.flatten()].view(CHANNELS, k, -1)
        fused = module.fuse((chosen * weights).sum(dim=1)[None], image.flatten(1)[None]).view_as(image)
        torch.testing.assert_close(result, fused * region + image * (1 - region))


@pytest.mark.parametrize("overrides", [{"k": 0}, {"k": -1}, {"k": 1.5}, {"local_dynamic": "cosine"}], ids=str)
def test_bad_arguments_get_a_sentence(overrides):
    for name in ("hdnet-nano", "base"):
        with pytest.raises(ValueError, match="must be"):
            create_model(name, **overrides)


@pytest.mark.parametrize("formulation", ["dot", "zeroed", "positions"])
def test_each_divergence_alone_worked_position_by_position(formulation):
    torch.manual_seed(2)
    feature, mask = torch.randn(1, CHANNELS, SIDE, SIDE), torch.zeros(1, 1, SIDE, SIDE)
    mask[..., :2, :] = 1
    feature[..., 2:, :] -= 3 * feature[:, :, :1, :1]  # where every background is unlike, a zero vector wins
    module = LOCAL_DYNAMICS[formulation](CHANNELS, 2)
    values, region = feature[0].flatten(1), mask.flatten().bool()
    compared = values if formulation == "dot" else F.normalize(values, dim=0)
    support = values * ~region if formulation == "zeroed" else values
    similarity = compared.T @ (compared * ~region if formulation == "zeroed" else compared)
    if formulation != "zeroed":
        similarity[:, region] = -torch.inf
    nearest, chosen = similarity.topk(2, dim=1)
    alpha = nearest.softmax(dim=0 if formulation == "positions" else 1)
    expected = module.fuse((support[:, chosen] * alpha).sum(dim=2)[None], values[None])[0]
    result = module(feature, mask)[0].flatten(1)
    torch.testing.assert_close(result[:, region], expected[:, region])
    assert torch.equal(result[:, ~region], values[:, ~region])
    paper = LocalDynamic(CHANNELS, 2)
    paper.load_state_dict(module.state_dict())
    assert not torch.allclose(paper(feature, mask)[0].flatten(1), result)


@pytest.mark.parametrize("k", [1, 3, 9])
def test_blocks_find_the_same_neighbours_as_the_whole_matrix(k, monkeypatch):
    torch.manual_seed(0)
    query, support = torch.randn(70, 8), torch.randn(150, 8)
    monkeypatch.setattr(streaming, "BLOCK", (16, 40))
    assert torch.equal(nearest_neighbors(query, support, k), (query @ support.T).topk(k, dim=1).indices)
    few = nearest_neighbors(query, support[:4], k)
    assert torch.equal(few, (query @ support[:4].T).topk(min(k, 4), dim=1).indices)


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 4])
def test_a_streamed_map_and_its_gradients_are_those_of_the_dense_one(k, monkeypatch):
    """Several foreground sizes in one batch, and images without one of the regions."""
    torch.manual_seed(0)
    feature = torch.randn(4, CHANNELS, 9, 7, dtype=torch.float64, requires_grad=True)
    mask = torch.zeros(4, 1, 9, 7, dtype=torch.float64)
    mask[0, :, 2:5, 1:4], mask[1, :, :8], mask[2] = 1, 1, 1
    module = StreamingLocalDynamic(CHANNELS, k).double()
    results = []
    for largest in (10**6, 0):
        module.largest_dense = largest
        monkeypatch.setattr(streaming, "BLOCK", (5, 8))
        output = module(feature, mask)
        results.append([output, *torch.autograd.grad(output.square().sum(), [feature, *module.parameters()])])
    for dense, streamed in zip(*results, strict=True):
        torch.testing.assert_close(streamed, dense)
    check_gradients(module, feature.detach()[:, :, :4, :4], mask[:, :, :4, :4])


def test_a_streamed_map_works_under_autocast():
    dense, feature, mask = case(0)
    expected = dense(feature, mask)
    module = StreamingLocalDynamic(CHANNELS)
    module.load_state_dict(dense.state_dict())
    module.largest_dense = 0
    with torch.autocast("cpu", torch.bfloat16):
        streamed = module(feature, mask)
    torch.testing.assert_close(streamed, expected, atol=0.05, rtol=0.05)


def test_a_map_of_a_large_photo_needs_no_matrix_of_all_pairs():
    """65,536 positions, as at 2048 pixels: all pairs would take 17 GB."""
    torch.manual_seed(0)
    feature, mask = torch.randn(1, 8, 256, 256), torch.zeros(1, 1, 256, 256)
    mask[..., 100:130, 80:160] = 1
    module = StreamingLocalDynamic(8)
    before = psutil.Process().memory_info().rss
    peak = []
    hook = module.adaptive.register_forward_hook(lambda *_: peak.append(psutil.Process().memory_info().rss))
    with torch.inference_mode():
        result = module(feature, mask)
    hook.remove()
    assert max(peak) - before < 400e6
    some = torch.tensor([[100, 80], [115, 120], [129, 159]])
    background = feature[0][:, mask[0, 0] == 0]
    for y, x in some.tolist():
        own = feature[0, :, y, x]
        nearest = background[:, F.cosine_similarity(own[:, None], background, dim=0).argmax()]
        expected = module.fuse(nearest[None, :, None], own[None, :, None])[0, :, 0]
        torch.testing.assert_close(result[0, :, y, x], expected)
