#!/usr/bin/env python3
"""Times a block, forward and backward, and the student update of Wan2.1 here and in PyTorch, on the
same GPU, at the same sizes (21 x 60 x 104 latents: 32,760 tokens), and prints one table.

    scripts/compare_pytorch_gpu.py build-cuda/tmd                  # both
    scripts/compare_pytorch_gpu.py build-cuda/tmd --what block     # of 1.3B and of 14B

The PyTorch side (2.5 or newer, with CUDA) is the model of compare_pytorch.py as one would run it there:
bfloat16 by autocast over float32 weights, frozen networks in bfloat16, torch.compile over blocks,
attention by cuDNN or else flash, checkpointed blocks where tmd recomputes, fused AdamW.  Each program
has the GPU for itself in turn."""
import argparse
import contextlib
import statistics
import sys
from functools import partial

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

import compare_pytorch as pytorch

VIDEO = (21, 60, 104)


class CheckpointedWan(pytorch.Wan):
    """Computes each block again in backward."""

    def run(self, block, *inputs):
        if not torch.is_grad_enabled():
            return block(*inputs)
        return checkpoint(block, *inputs, use_reentrant=False)


@contextlib.contextmanager
def as_on_a_gpu(device):
    attention = contextlib.nullcontext()
    if device == "cuda":
        attention = sdpa_kernel([SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION],
                                set_priority=True)
    with torch.device(device), torch.autocast(device, dtype=torch.bfloat16), attention:
        yield


def finish(device):
    if device == "cuda":
        torch.cuda.synchronize()


def free_memory(device):
    if device == "cuda":
        torch.cuda.empty_cache()  # the other program is next


def time_block(config, video, args):
    with as_on_a_gpu(args.device):
        m = config.model
        wan_grid = [n // p for n, p in zip(video, m.patch_size)]
        rope = pytorch.rope_table(m, wan_grid)
        block = pytorch.Block(m)
        block.compile(disable=args.eager)
        x = torch.randn(1, rope[0].shape[0], m.dim, dtype=torch.bfloat16, requires_grad=True)
        e0 = torch.randn(1, 6, m.dim, requires_grad=True)
        context = torch.randn(1, m.text_len, m.dim, dtype=torch.bfloat16, requires_grad=True)
        gradient = torch.randn_like(x)

        def run():
            out = block(x, e0, context, rope)
            out.backward(gradient.to(out.dtype))

        return pytorch.time_pytorch(run, args.seconds, partial(finish, args.device))


def time_student(config, video, args):
    if config.train.recompute != "none":
        pytorch.Wan = CheckpointedWan
    with as_on_a_gpu(args.device):
        trainer = pytorch.Trainer(config, video, "stage2")
        trainer.teacher.bfloat16()
        for network in (trainer.student, trainer.teacher, trainer.fake):
            for block in network.blocks:
                block.compile(disable=args.eager)
        return pytorch.time_pytorch(partial(trainer.iterate, "student"), args.seconds,
                                    partial(finish, args.device))


def compare(args, name, what, time_theirs, row):
    """One line: `row` of what `tmd bench --what` tells, against time_theirs."""
    arguments = [args.config or str(pytorch.ROOT / "configs" / name / "stage2.yaml"),
                 f"device.backend={args.device}", *args.overrides]
    config = pytorch.resolved_config(args.tmd, arguments)
    pytorch.refuse_what_is_not_here(config)
    video = tuple(args.video)
    ours, theirs = [], []
    for _ in range(args.rounds):
        sections = pytorch.bench(args.tmd, arguments, video, args.seconds / 4, what)
        ours.append(pytorch.row_seconds(sections, row)["one" if what == "block" else "student"])
        theirs.append(time_theirs(config, video, args))
        free_memory(args.device)
    a, b = statistics.median(ours), statistics.median(theirs)
    print(f"  {name + ', ' + what:24} {1e3 * a:10.2f} {1e3 * b:10.2f} {b / a:14.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tmd", help="the program to measure")
    parser.add_argument("overrides", nargs="*", help="section.key=value for the program's steps")
    parser.add_argument("--what", choices=["all", "block", "student"], default="all")
    parser.add_argument("--config", help="another configuration of stage two than Wan's")
    parser.add_argument("--video", type=int, nargs=3, default=VIDEO, help="latent frames, rows, columns")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--eager", action="store_true", help="without torch.compile")
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=1, help="turns of the two programs")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("this PyTorch finds no CUDA device")
    on = torch.cuda.get_device_name() if args.device == "cuda" else "the CPU"
    print(f"{on}, PyTorch {torch.__version__}, ms")
    print(f"  {'':24} {'tmd':>10} {'PyTorch':>10} {'PyTorch / tmd':>14}")
    if args.what != "student":
        for name in ("given",) if args.config else ("wan2.1-1.3b", "wan2.1-14b"):
            compare(args, name, "block", time_block, "forward and backward")
    if args.what != "block":
        compare(args, "given" if args.config else "wan2.1-1.3b", "step", time_student,
                "whole iteration")
    return 0


if __name__ == "__main__":
    sys.exit(main())
