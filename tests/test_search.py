"""Exact search against NumPy in float64, at every level, and bit for bit against itself."""

import mmap

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tallow as tl
from tallow import search
from tallow.errors import ArgumentError, DTypeError, ShapeError
from tests.backends.cpu.conftest import cpu_level, threads  # noqa: F401

some = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
pytestmark = pytest.mark.usefixtures("cpu_level")

STORED = ("float32", "float16", "int8")
dims = st.one_of(st.integers(0, 70), st.sampled_from([128, 384, 1000]))
counts = st.one_of(st.integers(0, 40), st.sampled_from([255, 256, 257, 1025]))


def draw(shape, dtype="float32", seed=0):
    values = np.random.default_rng(seed).standard_normal(shape)
    return np.clip(values * 40, -128, 127).astype(np.int8) if dtype == "int8" else values.astype(dtype)


def reference(scores, k):
    """The k best of each row of scores: sorted by NaN, by score, by index."""
    order = [sorted(range(len(row)), key=lambda i: (np.isnan(row[i]), -np.nan_to_num(row[i]), i))[:k] for row in scores]
    indices = np.array(order, np.int64).reshape(len(scores), min(k, scores.shape[1]))
    return np.take_along_axis(scores, indices, 1), indices


def found(queries, vectors, k, **options):
    scores, indices = search.top_k(queries, vectors, k, **options)
    assert (scores.dtype.name, indices.dtype.name) == ("float32", "int64")
    return scores.numpy(), indices.numpy()


@some
@given(st.integers(0, 15), counts, dims, st.integers(1, 300), st.sampled_from(STORED), st.integers(0, 99))
def test_any_shape_and_type(q, n, dim, k, dtype, seed):
    queries, vectors = draw((q, dim), seed=seed), draw((n, dim), dtype, seed + 1)
    scores, indices = found(queries, vectors, k)
    exact = queries.astype(np.float64) @ vectors.astype(np.float64).T
    bound = np.abs(queries).astype(np.float64) @ np.abs(vectors).astype(np.float64).T
    if dtype == "int8":
        exact, bound = exact / 127, bound / 127
    slack = 2e-7 * (4 + dim / 8) * (bound.max(initial=0) + 1e-30)
    assert scores.shape == indices.shape == (q, min(k, n))
    np.testing.assert_allclose(scores, np.take_along_axis(exact, indices, 1), rtol=0, atol=slack)
    np.testing.assert_allclose(scores, reference(exact, k)[0], rtol=0, atol=slack)
    everything = found(queries, vectors, n + 1)[1] if n else indices
    assert all(sorted(row) == list(range(n)) for row in everything)


@some
@given(
    st.integers(1, 8), st.integers(1, 600), st.integers(1, 40), st.integers(1, 50), st.sampled_from(STORED), st.data()
)
def test_whole_numbers_are_found_exactly(q, n, dim, k, dtype, data):
    """Sums of small whole numbers are exact in any order, and many are equal."""
    seed = data.draw(st.integers(0, 999))
    rng = np.random.default_rng(seed)
    queries = rng.integers(-2, 3, (q, dim)).astype(np.float32)
    vectors = rng.integers(-2, 3, (n, dim)).astype(dtype)
    scores, indices = found(queries, vectors, k, scales=1)
    expected = reference(queries @ vectors.astype(np.float32).T, k)
    np.testing.assert_array_equal(indices, expected[1])
    np.testing.assert_array_equal(scores, expected[0])


@pytest.mark.parametrize("dtype", STORED)
def test_neighbours_and_threads_change_no_bit(dtype, threads):  # noqa: F811
    queries, vectors = draw((13, 387)), draw((3001, 387), dtype)
    scores, indices = found(queries, vectors, 40)
    for count in (1, 2, 5):
        threads(count)
        again = found(queries, vectors, 40)
        assert scores.tobytes() == again[0].tobytes()
        assert indices.tobytes() == again[1].tobytes()
    for i in (0, 7, 12):
        alone = found(queries[i], vectors, 40)
        assert scores[i].tobytes() == alone[0].tobytes()
        assert indices[i].tobytes() == alone[1].tobytes()
    best = indices[3, 0]
    assert found(queries[3:4], vectors[best : best + 1], 1)[0][0, 0] == scores[3, 0]


def test_equal_scores_come_in_the_order_of_their_indices():
    vectors = np.ones((5000, 3), np.float32)
    vectors[4000] = 2
    assert found(np.ones(3, np.float32), vectors, 6)[1].tolist() == [4000, 0, 1, 2, 3, 4]
    assert found(np.zeros(3, np.float32), -vectors, 3)[1].tolist() == [0, 1, 2]  # 0 and -0 are equal


@pytest.mark.parametrize("k", [1, 3, 9, 20])
def test_nan_comes_last_and_infinities_are_numbers(k):
    column = np.array([np.nan, 1, -np.inf, np.nan, np.inf, 5, np.nan, -2, 5, np.inf] * 2, np.float32)
    scores, indices = found(np.ones((1, 1), np.float32), column[:, None], k)
    expected = reference(column[None], k)
    np.testing.assert_array_equal(indices, expected[1])
    np.testing.assert_array_equal(scores, expected[0])
    assert np.isnan(found(np.full(1, np.nan, np.float32), column[:, None], k)[0]).all()


def test_scores_that_rise_and_fall_replace_each_other():
    rising = np.arange(3000, dtype=np.float32)[:, None]
    for vectors in (rising, -rising):
        scores, indices = found(np.ones((2, 1), np.float32), vectors, 1000)
        np.testing.assert_array_equal(indices[1], reference(vectors.T, 1000)[1][0])
        np.testing.assert_array_equal(scores[0], vectors[indices[0], 0])


def test_scales_of_each_vector_and_of_all():
    vectors, scales = draw((50, 8), "int8"), np.linspace(-1, 1, 50).astype(np.float32)
    query = draw(8)
    exact = vectors.astype(np.float64) @ query
    np.testing.assert_allclose(found(query, vectors, 1)[0], [exact.max() / 127], rtol=1e-5)
    np.testing.assert_allclose(found(query, vectors, 1, scales=0.5)[0], [exact.max() / 2], rtol=1e-5)
    assert found(query, vectors, 5, scales=tl.asarray(scales))[1].tolist() == np.argsort(-exact * scales)[:5].tolist()
    with pytest.raises(ShapeError, match=r"one for each of 50 vectors, found shape \(49,\)"):
        search.top_k(query, vectors, 1, scales=scales[:49])


def test_extreme_bytes_are_summed_exactly():
    vectors = np.array([[127] * 400, [-128] * 400, [0] * 400], np.int8)
    scores, indices = found(np.full(400, 127, np.float32), vectors, 3, scales=1)
    assert scores.tolist() == [127 * 127 * 400, 0, -128 * 127 * 400]
    assert indices.tolist() == [0, 2, 1]


def test_arrays_of_any_layout():
    vectors, queries = draw((60, 20)), draw((3, 20))
    wanted = found(queries, vectors, 7)
    unaligned = np.frombuffer(b"\0" + vectors.tobytes(), np.uint8)[1:].view(np.float32).reshape(60, 20)
    wide = np.zeros((60, 45), np.float32)
    wide[:, 3:43:2] = vectors
    padded = np.zeros((60, 33), np.float32)
    padded[:, 5:25] = vectors
    for layout in (np.asfortranarray(vectors), unaligned, wide[:, 3:43:2], padded[:, 5:25], vectors[::-1][::-1]):
        scores, indices = found(np.asfortranarray(queries), layout, 7)
        assert scores.tobytes() == wanted[0].tobytes()
        assert indices.tobytes() == wanted[1].tobytes()
    backward = found(queries, vectors[::-1], 7)
    assert backward[1].tolist() == (59 - wanted[1]).tolist()
    assert found(queries, np.broadcast_to(vectors[:1], (9, 20)), 3)[1].tolist() == [[0, 1, 2]] * 3


def test_queries_of_every_floating_type():
    vectors = draw((40, 16))
    for dtype in (np.float64, np.float16, ml_dtypes.bfloat16):
        query = draw(16).astype(dtype)
        assert (
            found(tl.Tensor(query), vectors, 3)[1].tolist() == found(query.astype(np.float32), vectors, 3)[1].tolist()
        )


@pytest.mark.parametrize("dtype", STORED)
def test_a_file_is_searched_piece_by_piece_and_its_pages_given_back(tmp_path, monkeypatch, dtype):
    vectors, queries = draw((2000, 50), dtype), draw((4, 50))
    path = tmp_path / "vectors.npy"
    np.save(path, vectors)
    wanted = found(queries, vectors, 9)
    monkeypatch.setattr(search, "_CHUNK", 30_000)
    advised = []

    class Map(mmap.mmap):
        def madvise(self, advice, start, length):
            advised.append((advice, start, start + length))
            super().madvise(advice, start, length)

    monkeypatch.setattr(mmap, "mmap", Map)
    for source in (path, str(path), np.load(path, mmap_mode="r"), np.load(path, mmap_mode="c")):
        advised.clear()
        scores, indices = found(queries, source, 9)
        assert scores.tobytes() == wanted[0].tobytes()
        assert indices.tobytes() == wanted[1].tobytes()
        released = [piece for piece in advised if piece[0] == mmap.MADV_DONTNEED]
        if getattr(source, "mode", "r") == "c":
            assert not advised
            continue
        assert released[-1][2] == path.stat().st_size
        assert released == sorted(released)


def test_what_was_written_to_a_private_mapping_stays(tmp_path):
    np.save(tmp_path / "v.npy", draw((100, 4)))
    private = np.load(tmp_path / "v.npy", mmap_mode="c")
    private[70] = 100
    for _ in range(2):
        assert found(np.ones(4, np.float32), private, 1)[1].tolist() == [70]


def test_nothing_to_find(tmp_path):
    for q, n in ((0, 5), (3, 0), (0, 0)):
        scores, indices = found(draw((q, 4)), draw((n, 4)), 2)
        assert scores.shape == indices.shape == (q, min(2, n))
    np.save(tmp_path / "empty.npy", draw((0, 4)))
    assert found(draw(4), tmp_path / "empty.npy", 2)[0].shape == (0,)
    assert found(draw((2, 0)), draw((3, 0)), 2)[0].tolist() == [[0, 0], [0, 0]]


def test_errors_say_what_was_found(tmp_path):
    vectors = draw((5, 4))
    with pytest.raises(ShapeError, match=r"queries of shape \(3,\) and vectors of shape \(5, 4\)"):
        search.top_k(draw(3), vectors, 1)
    for queries, stored in ((draw((1, 1, 4)), vectors), (draw(4), vectors[0]), (np.float32(1), vectors)):
        with pytest.raises(ShapeError):
            search.top_k(queries, stored, 1)
    for wrong in (vectors.astype(np.float64), vectors.astype(ml_dtypes.bfloat16), vectors.astype(">f4"), vectors > 0):
        with pytest.raises(DTypeError, match="expected vectors in float32, float16 or int8"):
            search.top_k(draw(4), wrong, 1)
    with pytest.raises(DTypeError, match="expected queries in floating point, found int64"):
        search.top_k(np.ones(4, np.int64), vectors, 1)
    for k in (0, -3, 1.5, "2"):
        with pytest.raises(ArgumentError, match="k is"):
            search.top_k(draw(4), vectors, k)
    (tmp_path / "no.npy").write_bytes(b"something else")
    np.savez(tmp_path / "several.npz", a=vectors)
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "cut.npy").write_bytes(b"")
    for name in ("no.npy", "several.npz", "objects.npy", "cut.npy", "absent.npy"):
        with pytest.raises(ArgumentError, match=f"{name} cannot be mapped"):
            search.top_k(draw(4), tmp_path / name, 1)
