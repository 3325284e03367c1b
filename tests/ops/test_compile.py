"""The ops as torch sees them: schemas, fake kernels, torch.compile, torch.export, CUDA graphs."""

import pytest
import torch

import pyfastcal as fc
from pyfastcal import ops, reference
from pyfastcal.ops import extension

from ..devices import each_device, moved, needs_gpu, never_waiting, run_on
from .cases import CONTRAST_CONSTANTS, normal, weights

needs_kernels = pytest.mark.skipif(extension.C is None, reason="built without the compiled kernels")

EDGES = reference.uniform_edges(10)
CALLS = {
    "knn": lambda: (normal(0, 5, 8), normal(1, 9, 8), 3, False, True),
    "confidence": lambda: (normal(0, 5, 8), weights(0, 8), weights(1, 5)),
    "similarity_confidence": lambda: (
        normal(0, 5, 8),
        normal(1, 4, 8),
        10.0,
        None,
        weights(0, 4),
        None,
        True,
    ),
    "checked_confidence": lambda: (normal(0, 5, 8), weights(0, 8), weights(1, 5)),
    "checked_similarity_confidence": lambda: (normal(0, 5, 8), normal(1, 4, 8), 10.0, None, weights(0, 4), None, True),
    "checked_knn": lambda: (normal(0, 5, 8), normal(1, 9, 8), 3, False, True),
    "contrast_distance": lambda: (*(normal(i, 5, 8) for i in range(4)), False, 10.0, True),
    "bin_counts": lambda: (torch.rand(20), torch.rand(20) < 0.5, EDGES, 10, torch.arange(20) % 2, 2, False),
    "add_rows": lambda: (
        torch.zeros(41, dtype=torch.int64),
        torch.rand(20),
        torch.arange(20) % 3,
        torch.arange(20) % 2,
        None,
        EDGES,
        1,
        False,
        False,
        False,
        True,
    ),
    "scale_logits": lambda: (normal(0, 5, 8), None, weights(1, 5)),
    "divide_logits": lambda: (normal(0, 5, 8), torch.tensor(1.3, dtype=torch.float64)),
    "scale_by_contrast": lambda: (
        normal(0, 5, 8),
        normal(1, 5, 8),
        100.0,
        *CONTRAST_CONSTANTS,
    ),
    "predict_by_contrast": lambda: (
        normal(0, 5, 8),
        normal(1, 4, 8),
        normal(0, 5, 8),
        normal(1, 4, 8) + 0.01,
        10.0,
        None,
        False,
        True,
        *CONTRAST_CONSTANTS,
    ),
    "similarity": lambda: (normal(0, 5, 8), normal(1, 4, 8), True),
    "nll": lambda: (normal(0, 5, 8), torch.arange(5), 0.7),
    "log_density": lambda: (normal(0, 5, 2), normal(1, 9, 2), torch.tensor([0.3, 0.2], dtype=torch.float64)),
}


@needs_kernels
@each_device
@pytest.mark.parametrize("name", CALLS)
def test_opcheck(device, name):
    torch.library.opcheck(getattr(torch.ops.pyfastcal, name), moved(device, CALLS[name]()))


FUNCTIONS = {
    "knn": (lambda q, b: fc.knn(q, b, 3), lambda n: (normal(0, n, 8), normal(1, 9, 8))),
    "confidence": (lambda x, w: fc.confidence(x, class_weight=w), lambda n: (normal(0, n, 8), weights(0, 8))),
    "similarity_confidence": (
        lambda x, t: fc.similarity_confidence(x, t, 10.0),
        lambda n: (normal(0, n, 8), normal(1, 4, 8)),
    ),
    "contrast_distance": (
        lambda *f: ops.contrast_distance(*f, on="probability"),
        lambda n: (normal(0, n, 8), normal(1, 4, 8), normal(2, n, 8), normal(3, 4, 8)),
    ),
    "bin_counts": (lambda c, k: fc.bin_counts(c, k, 10), lambda n: (torch.rand(n), torch.rand(n) < 0.5)),
    "similarity": (ops.similarity, lambda n: (normal(0, n, 8), normal(1, 4, 8))),
    "nll": (lambda x, y: ops.nll(x, y, 0.7), lambda n: (normal(0, n, 8), torch.arange(n) % 8)),
    "log_density": (ops.log_density, lambda n: (normal(0, n, 2), normal(1, 9, 2), torch.tensor([0.3, 0.2]))),
}


@each_device
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_a_graph_break(device, name, dynamic):
    torch._dynamo.reset()
    function, arguments = FUNCTIONS[name]
    compiled = torch.compile(function, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for n in (7, 12):
        inputs = moved(device, arguments(n))
        torch.testing.assert_close(compiled(*inputs), function(*inputs), rtol=0, atol=0)


@each_device
def test_compiles_with_inductor(device):
    torch._dynamo.reset()

    def pipeline(image, text, gamma, labels):
        confidence, prediction = fc.similarity_confidence(image * 2, text, 10.0, class_weight=gamma)
        return fc.bin_counts(confidence, prediction == labels, 5)

    inputs = moved(device, (normal(0, 30, 16), normal(1, 7, 16), weights(0, 7), torch.arange(30) % 7))
    compiled = torch.compile(pipeline, fullgraph=True)
    same = dict(rtol=1e-6, atol=1e-6) if extension.C is None else dict(rtol=0, atol=0)  # inductor fuses the twin's sums
    torch.testing.assert_close(compiled(*inputs), pipeline(*inputs), **same)


@needs_gpu
@pytest.mark.parametrize("name", FUNCTIONS)
def test_runs_in_a_cuda_graph_and_never_waits_for_the_gpu(name):
    function, arguments = FUNCTIONS[name]
    inputs, others = (moved("cuda", arguments(n)) for n in (40, 40))
    others = [x.flip(0) for x in others]
    expected = [function(*inputs), function(*others)]
    with never_waiting():
        function(*inputs)
    static = [x.clone() for x in inputs]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = function(*static)
    for values, result in zip((inputs, others), expected, strict=True):
        for to, x in zip(static, values, strict=True):
            to.copy_(x)
        graph.replay()
        torch.testing.assert_close(out, result, rtol=0, atol=0)


@needs_gpu
@pytest.mark.parametrize("name", FUNCTIONS)
def test_uses_the_current_stream(name):
    function, arguments = FUNCTIONS[name]
    inputs = moved("cuda", arguments(40))
    expected = function(*inputs)
    stream = torch.cuda.Stream()
    static = [torch.zeros_like(x) for x in inputs]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10_000_000)  # whoever does not wait for it reads zeros
        for to, x in zip(static, inputs, strict=True):
            to.copy_(x)
        out = function(*static)
    stream.synchronize()
    torch.testing.assert_close(out, expected, rtol=0, atol=0)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_runs_where_its_tensors_are(name):
    function, arguments = FUNCTIONS[name]
    inputs = arguments(40)
    torch.testing.assert_close(
        run_on("cuda", function)(*inputs), moved("cpu", function(*moved("cuda:1", inputs))), rtol=0, atol=0
    )


@needs_kernels
def test_exports():
    class Confidence(torch.nn.Module):
        def forward(self, image, text):
            return fc.similarity_confidence(image, text, 10.0)

    n = torch.export.Dim("n", min=2, max=100)
    inputs = normal(0, 8, 16), normal(1, 5, 16)
    program = torch.export.export(Confidence(), inputs, dynamic_shapes={"image": {0: n}, "text": None})
    other = normal(2, 33, 16)
    torch.testing.assert_close(program.module()(other, inputs[1]), fc.similarity_confidence(other, inputs[1], 10.0))


@needs_kernels
def test_non_finite_input_shows_as_nan_where_values_cannot_be_looked_at():
    logits = torch.tensor([[1.0, 2.0], [1.0, float("nan")]])
    torch._dynamo.reset()
    confidence, _ = torch.compile(fc.confidence, fullgraph=True, backend="eager")(logits)
    assert confidence.isnan().tolist() == [False, True]
