"""Acting, compiled: vision tower, decoder and denoising loop as one static graph each, and one CUDA graph of all three.

Compiled kernels round elsewhere than eager ones, and a compiler may be wrong. So the first chunk of each shape is computed both
ways, from the same noise, and nothing compiled acts that differs from eager by more than a tolerance.
"""

import copy
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._dynamo import config as dynamo_config
from torch.utils._pytree import tree_flatten, tree_unflatten

from lerobot_gem.inference.acting import ChunkInputs, ChunkSampler, denoise, read, see
from lerobot_gem.models.action_expert import Integrator

logger = logging.getLogger(__name__)

# Largest difference of a normalised action, whose range is about -1 to 1: see docs/how_to/act_faster.md.
TOLERANCES = {"float32": 1e-3, "bfloat16": 0.05}
# An instruction of another length is another shape, and so is a last batch that is smaller. LIBERO's four suites have some 15 lengths, so
# 30 shapes at most; this is twice as many. Whoever meets more has something that changes all the time, and compiles without end.
MAX_SHAPES = 64


class CompiledSampler:
    """A `ChunkSampler` that compiles itself for each shape that it meets.

    Args:
        eager: Computes the same without compilation.
        tolerance: Largest difference to it of a number of the first chunk.
        backend: torch's compiler.
    """

    def __init__(self, eager: ChunkSampler, tolerance: float, backend: str = "inductor") -> None:
        self._eager = eager
        self._tolerance = tolerance
        self._backend = backend
        compile_ = partial(torch.compile, fullgraph=True, dynamic=False, backend=backend)
        self._compiled: ChunkSampler | None = replace(
            eager, see=compile_(see), read=compile_(read), denoise=compile_(denoise)
        )
        self._shapes: dict[Any, _CudaGraph | None] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> "CompiledSampler":
        """One that compiles anew: a CUDA graph reads the weights where they were."""
        return CompiledSampler(copy.deepcopy(self._eager, memo), self._tolerance, self._backend)

    @property
    def is_compiled(self) -> bool:
        """Whether compiled chunks have been as eager ones so far."""
        return self._compiled is not None

    def __call__(self, inputs: ChunkInputs, steps: int, integrate: Integrator | None = None) -> Tensor:
        """Sample a chunk; arguments and result are `ChunkSampler`'s.

        Another integrator runs eagerly, behind the vision tower and the decoder, and without a CUDA graph.

        Raises:
            ValueError: The shapes keep changing.
            RuntimeError: torch can't compile.
        """
        # Graphs belong to one mode, whoever calls; nothing here is differentiated.
        with torch.inference_mode(False), torch.no_grad():
            if self._compiled is None:
                return self._eager(inputs, steps, integrate)
            key = _shapes(inputs), steps, integrate is not None, _addresses(self._eager)
            if key not in self._shapes:
                return self._first(key, inputs, steps, integrate)
            graph = self._shapes[key]
            return graph(inputs) if graph is not None else self._run(inputs, steps, integrate)

    def _first(self, key: Any, inputs: ChunkInputs, steps: int, integrate: Integrator | None) -> Tensor:
        """The first chunk of a shape, compiled and eagerly."""
        if len(self._shapes) == MAX_SHAPES:
            raise ValueError(
                f"compile_model=true compiles for each shape, and met more than {MAX_SHAPES}, now prompts of shape "
                f"{tuple(inputs.mask.shape)} with {len(inputs.pixel_values)} patches: expected a robot's constant cameras and few "
                "instructions and batch sizes. Set --policy.compile_model=false."
            )
        eager = self._eager(inputs, steps, integrate)
        start = time.perf_counter()
        graph = None
        try:
            chunk = self._run(inputs, steps, integrate)
            if inputs.noise.is_cuda and integrate is None:
                graph = _CudaGraph(lambda given: self._run(given, steps), inputs)
                chunk = graph(inputs)
        except Exception as error:
            raise RuntimeError(
                f"compile_model=true, but torch could not compile the policy ({type(error).__name__}: {error}). It needs a C++ "
                "compiler (g++), and triton on a GPU. Install them, or set --policy.compile_model=false."
            ) from error
        difference = (chunk - eager).abs().max().item()
        seconds = time.perf_counter() - start
        if not difference <= self._tolerance:
            logger.warning(
                "compile_model: the first compiled chunk differs from the eager one by %.3g, more than %.3g. Nothing compiled "
                "acts: the policy goes on without compilation.",
                difference,
                self._tolerance,
            )
            self._compiled = None
            return eager
        logger.info(
            "compile_model: compiled for prompts of shape %s with %d patches in %.1f s; the first chunk differs from the eager "
            "one by %.2g.",
            tuple(inputs.mask.shape),
            len(inputs.pixel_values),
            seconds,
            difference,
        )
        self._shapes[key] = graph
        return chunk

    def _run(self, inputs: ChunkInputs, steps: int, integrate: Integrator | None = None) -> Tensor:
        assert self._compiled is not None
        # torch counts what it compiles for a function in all policies of a process together.
        with dynamo_config.patch(recompile_limit=1000, accumulated_recompile_limit=1000):
            return self._compiled(inputs, steps, integrate)


class _CudaGraph:
    """A function of tensors as one launch; not bound to the thread that made it, as torch.compile's own graphs are."""

    def __init__(self, function: Any, inputs: ChunkInputs) -> None:
        self._inputs = _tensors(inputs)
        leaves, structure = tree_flatten(inputs)
        own = iter(tensor.clone() for tensor in self._inputs)
        leaves = [next(own) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        given = tree_unflatten(leaves, structure)
        self._inputs = _tensors(given)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                function(given)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._output = function(given)

    def __call__(self, inputs: ChunkInputs) -> Tensor:
        for own, given in zip(self._inputs, _tensors(inputs), strict=True):
            own.copy_(given)
        self._graph.replay()
        return self._output.clone()


def _tensors(inputs: ChunkInputs) -> Sequence[Tensor]:
    return [leaf for leaf in tree_flatten(inputs)[0] if isinstance(leaf, Tensor)]


def _shapes(inputs: ChunkInputs) -> tuple[Any, ...]:
    """What a graph is made for: shapes and types of tensors, and the sizes of images."""
    leaves, structure = tree_flatten(inputs)
    described = [
        (leaf.shape, leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else leaf for leaf in leaves
    ]
    return (*described, repr(structure))


def _addresses(sampler: ChunkSampler) -> tuple[int, ...]:
    """Where weights are; a CUDA graph reads them where they were."""
    ends = [[*module.parameters()] for module in (sampler.backbone, sampler.expert)]
    return tuple(weights[place].data_ptr() for weights in ends for place in (0, -1))
