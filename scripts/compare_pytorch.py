#!/usr/bin/env python3
"""Times the training steps of a configuration here and in PyTorch, on the CPU, with the same sizes,
threads and options, and prints one table.  Only for curiosity and for the README: tmd needs no Python.

    scripts/compare_pytorch.py build/tmd                      # the configurations of configs/tiny
    scripts/compare_pytorch.py build/tmd --size middle        # 512 tokens of width 512, 6 layers
    scripts/compare_pytorch.py build/tmd --threads 1

The PyTorch side (2.4 or newer) is the same model and the same steps as one would write them there:
autograd, scaled_dot_product_attention, rms_norm, fused AdamW.  Random weights and data; an iteration
is noise, forward, losses, backward, gradient norm, AdamW (and EMA), as in `tmd bench`.  The two
programs take turns, so that neither gets the quiet half of the machine."""
import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
MIDDLE = ["model.dim=512", "model.ffn_dim=2048", "model.num_heads=8", "model.num_layers=6",
          "model.freq_dim=256", "model.text_dim=64", "model.text_len=32", "model.in_dim=16",
          "model.out_dim=16", "model.patch_size=[1, 2, 2]", "train.global_batch=1",
          "train.micro_batch=1"]
SIZES = {"tiny": ([], (4, 16, 16)), "middle": (MIDDLE, (2, 32, 32))}
STEPS = {"teacher": ["teacher"], "stage1": ["stage1"], "stage2": ["student", "critic"]}


# ---- the model

class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        d = c.dim
        self.c, self.modulation = c, nn.Parameter(torch.randn(1, 6, d) / math.sqrt(d))
        self.qkv, self.self_out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.q, self.kv, self.cross_out = nn.Linear(d, d), nn.Linear(d, 2 * d), nn.Linear(d, d)
        self.norm3 = nn.LayerNorm(d, c.eps)
        self.norms = nn.ParameterList(nn.Parameter(torch.ones(d)) for _ in range(4))
        self.ffn = nn.Sequential(nn.Linear(d, c.ffn_dim), nn.GELU(approximate="tanh"),
                                 nn.Linear(c.ffn_dim, d))

    def heads(self, x):
        return x.unflatten(2, (self.c.num_heads, -1)).transpose(1, 2)

    def attend(self, q, k, v):
        out = F.scaled_dot_product_attention(q, k, v)
        return out.transpose(1, 2).flatten(2)

    def rms(self, x, which):
        return F.rms_norm(x, (self.c.dim,), self.norms[which], self.c.eps)

    def forward(self, x, e0, context, rope):
        d, eps = (self.c.dim,), self.c.eps
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.modulation + e0).chunk(6, dim=1)
        h = F.layer_norm(x, d, eps=eps) * (1 + scale1) + shift1
        q, k, v = self.qkv(h).chunk(3, dim=2)
        q = rotate(self.heads(self.rms(q, 0)), rope)
        k = rotate(self.heads(self.rms(k, 1)), rope)
        x = x + self.self_out(self.attend(q, k, self.heads(v))) * gate1
        k, v = self.kv(context).chunk(2, dim=2)
        q = self.rms(self.q(self.norm3(x)), 2)
        x = x + self.cross_out(self.attend(self.heads(q), self.heads(self.rms(k, 3)), self.heads(v)))
        return x + self.ffn(F.layer_norm(x, d, eps=eps) * (1 + scale2) + shift2) * gate2


def rotate(x, rope):
    cos, sin = rope
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(3)


def rope_table(c, grid):
    half = c.dim // c.num_heads // 2
    pairs = [half - 2 * (half // 3), half // 3, half // 3]
    angles = []
    for axis, n in enumerate(pairs):
        a = torch.outer(torch.arange(grid[axis]).double(), 10000 ** (-torch.arange(n).double() / n))
        shape = [1, 1, 1, n]
        shape[axis] = grid[axis]
        angles.append(a.view(shape).expand(*grid, n))
    a = torch.cat(angles, dim=3).flatten(0, 2)
    return a.cos().float(), a.sin().float()


def time_mlp(c):
    return nn.Sequential(nn.Linear(c.freq_dim, c.dim), nn.SiLU(), nn.Linear(c.dim, c.dim))


class Wan(nn.Module):
    """The DiT; with `student` also the flow head's own parts (gated fusion)."""

    def __init__(self, c, video, student=None):
        super().__init__()
        self.c, self.student, self.video = c, student, video
        self.grid = [n // p for n, p in zip(video, c.patch_size)]
        self.rope, volume, d = rope_table(c, self.grid), math.prod(c.patch_size), c.dim
        self.patch = nn.Linear(c.in_dim * volume, d)
        self.text = nn.Sequential(nn.Linear(c.text_dim, d), nn.GELU(approximate="tanh"),
                                  nn.Linear(d, d))
        self.time, self.projection = time_mlp(c), nn.Sequential(nn.SiLU(), nn.Linear(d, 6 * d))
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.num_layers))
        self.head_modulation = nn.Parameter(torch.randn(1, 2, d) / math.sqrt(d))
        self.head = nn.Linear(d, c.out_dim * volume)
        if student:
            self.delta, self.fusion_gate = time_mlp(c), nn.Parameter(torch.tensor(-6.0))
            self.fusion_modulation = nn.Parameter(torch.randn(1, 3, d) / math.sqrt(d))
            self.fusion = nn.Sequential(nn.Linear(d, c.ffn_dim), nn.GELU(approximate="tanh"),
                                        nn.Linear(c.ffn_dim, d))

    def patches(self, x):
        b, (f, h, w), (pt, ph, pw) = len(x), self.grid, self.c.patch_size
        x = x.view(b, -1, f, pt, h, ph, w, pw).permute(0, 2, 4, 6, 1, 3, 5, 7)
        return self.patch(x.reshape(b, f * h * w, -1))

    def unpatch(self, tokens):
        b, (f, h, w), (pt, ph, pw) = len(tokens), self.grid, self.c.patch_size
        x = tokens.view(b, f, h, w, pt, ph, pw, -1).permute(0, 7, 1, 4, 2, 5, 3, 6)
        return x.reshape(b, -1, *self.video)

    def sinusoid(self, t):
        half = self.c.freq_dim // 2
        a = torch.outer(1000 * t.double(), 10000 ** (-torch.arange(half).double() / half))
        return torch.cat((a.cos(), a.sin()), dim=1).float()

    def project(self, e):
        return self.projection(e).unflatten(1, (6, -1))

    def out(self, x, e):
        shift, scale = (self.head_modulation + e[:, None]).chunk(2, dim=1)
        return self.unpatch(self.head(
            F.layer_norm(x, (self.c.dim,), eps=self.c.eps) * (1 + scale) + shift))

    def run(self, block, *inputs):
        return block(*inputs)

    def forward(self, x, t, text, taps=(), only_taps=False):
        e, context, tokens = self.time(self.sinusoid(t)), self.text(text), self.patches(x)
        features = []
        e0 = self.project(e)
        for i, block in enumerate(self.blocks):
            tokens = self.run(block, tokens, e0, context, self.rope)
            if i in taps:
                features.append(self.unpatch(tokens))
                if only_taps and i == max(taps):
                    return None, features
        return self.out(tokens, e), features

    def backbone(self, x, t, text):
        e0 = self.project(self.time(self.sinusoid(t)))
        context, tokens = self.text(text), self.patches(x)
        for block in self.blocks[:self.c.num_layers - self.student.head_blocks]:
            tokens = self.run(block, tokens, e0, context, self.rope)
        return tokens, context

    def flow_head(self, m, y, s, r):
        tokens, context = m
        e = self.time(self.sinusoid(s)) + self.delta(self.sinusoid(s - r))
        e0, h = self.project(e), self.patches(y)
        shift, scale, gate = (self.fusion_modulation + e0[:, 3:]).chunk(3, dim=1)
        h = h + gate * self.fusion(
            F.layer_norm(h, (self.c.dim,), eps=self.c.eps) * (1 + scale) + shift)
        tokens = torch.lerp(tokens, h, torch.sigmoid(self.fusion_gate))
        for block in self.blocks[self.c.num_layers - self.student.head_blocks:]:
            tokens = self.run(block, tokens, e0, context, self.rope)
        return self.out(tokens, e)


class DiscriminatorHead(nn.Sequential):
    def __init__(self, channels, d):
        widths, layers = [channels, d.channels[0], d.channels[1], d.channels[2], d.channels[2]], []
        kernels = [((3, 4, 4), (1, 2, 2)), ((3, 4, 4), 2), (3, 2), (3, 2)]
        for (kernel, stride), n_in, n_out in zip(kernels, widths, widths[1:]):
            layers += [nn.Conv3d(n_in, n_out, kernel, stride, padding=1),
                       nn.GroupNorm(max(1, n_out // 4), n_out), nn.LeakyReLU(0.2, inplace=True)]
        super().__init__(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(),
                         nn.Linear(widths[-1], d.mlp_dim), nn.LeakyReLU(0.2),
                         nn.Linear(d.mlp_dim, 1))


# ---- the steps, each from a data batch to gradients

def column(t):
    return t.view(-1, 1, 1, 1, 1).float()


def noised(x, noise, t):
    return (1 - column(t)) * x + column(t) * noise


def shifted(u, gamma):
    return gamma * u / ((gamma - 1) * u + 1)


def time_grid(steps, gamma, t_max):
    grid = [shifted(i / steps, gamma) for i in range(steps + 1)]
    return [0.0] + grid[1:-1] + [t_max]


class Trainer:
    def __init__(self, c, video, stage):
        self.c, self.stage, m = c, stage, c.model
        self.batch, self.shape = c.train.micro_batch, (c.train.micro_batch, m.in_dim, *video)
        self.x, self.text = torch.randn(self.shape), torch.randn(self.batch, m.text_len, m.text_dim)
        self.neg_text = torch.randn(1, m.text_len, m.text_dim).expand_as(self.text).contiguous()
        self.trained, self.updates = [], 0
        if stage in ("teacher", "stage2"):
            self.teacher = Wan(m, video)
        if stage == "teacher":
            self.add_role("teacher", self.teacher)
        else:
            self.student = Wan(m, video, c.student)
            self.add_role("student", self.student)
            self.backbone, self.flow_head = self.student.backbone, self.student.flow_head
        if stage == "stage2":
            self.fake = Wan(m, video)
            self.discriminator = nn.ModuleList(
                DiscriminatorHead(m.dim // math.prod(m.patch_size), c.discriminator)
                for _ in c.discriminator.features)
            self.add_role("fake", self.fake)
            self.add_role("discriminator", self.discriminator)
            self.teacher.requires_grad_(False)

    def add_role(self, name, module):
        parameters, o = list(module.parameters()), self.c.optimizer
        optimizer = torch.optim.AdamW(parameters, lr=o.lr, betas=o.betas, eps=o.eps,
                                      weight_decay=o.weight_decay, fused=True)
        main = not self.trained
        ema = [p.detach().clone() for p in parameters] if main and self.c.ema.decay > 0 else None
        self.trained.append(SimpleNamespace(name=name, module=module, parameters=parameters,
                                            optimizer=optimizer, ema=ema))

    def iterate(self, kind):
        names = {"critic": ("fake", "discriminator"), "stage1": ("student",)}.get(kind, (kind,))
        roles = [role for role in self.trained if role.name in names]
        for role in self.trained:
            role.module.requires_grad_(role in roles)
        for role in roles:
            role.optimizer.zero_grad(set_to_none=True)
        float(getattr(self, kind + "_step")().detach())
        for role in roles:
            limit = self.c.optimizer.grad_clip or math.inf
            norm = torch.nn.utils.clip_grad_norm_(role.parameters, limit, foreach=True)
            if math.isfinite(float(norm)):
                role.optimizer.step()
            if role.ema:
                torch._foreach_lerp_(role.ema, role.parameters, 1 - self.c.ema.decay)

    def times(self, gamma):
        return shifted(torch.rand(self.batch, dtype=torch.float64), gamma).clamp(0.001, 0.999)

    def outer_times(self):
        s = self.c.student
        grid = torch.tensor(time_grid(s.outer_steps, s.outer_shift, s.t_max), dtype=torch.float64)
        return grid[1 + torch.randint(s.outer_steps, (self.batch,))]

    def dropped_text(self, probability):
        drop = torch.rand(self.batch) < probability
        return torch.where(drop[:, None, None], self.neg_text, self.text), drop

    def teacher_step(self):
        x1, t = torch.randn(self.shape), self.times(self.c.teacher.t_shift)
        text, _ = self.dropped_text(self.c.teacher.text_dropout)
        v, _ = self.teacher(noised(self.x, x1, t), t, text)
        loss = F.mse_loss(v, x1 - self.x)
        loss.backward()
        return loss

    def stage1_step(self):
        c, s1 = self.c.stage1, self.c.student
        x1, y1 = torch.randn(self.shape), torch.randn(self.shape)
        t, s = self.outer_times(), self.times(c.s_shift)
        grid = torch.tensor(time_grid(s1.inner_steps, s1.inner_shift, s1.t_max), dtype=torch.float64)
        r = grid[torch.bucketize(s, grid, right=True) - 1]
        r = torch.where(torch.rand(self.batch) < c.tm_prob, s, r)
        x_t, y = noised(self.x, x1, t), x1 - self.x
        y_s, v = noised(y, y1, s), y1 - y
        text, drop = self.dropped_text(c.text_dropout)
        if c.guidance != 1:
            with torch.no_grad():
                negative = y1 - self.flow_head(self.backbone(x_t, t, self.neg_text), y_s, s, s)
                guided = negative + c.guidance * (v - negative)
                v = torch.where(drop.view(-1, 1, 1, 1, 1), v, guided)
        m = self.backbone(x_t, t, text)
        u = y1 - self.flow_head(m, y_s, s, r)
        if c.method == "tm":
            target = v
        else:
            with torch.no_grad():
                hi = torch.where(s + c.fd_delta <= c.s_max, s + c.fd_delta, s)
                below = s - c.fd_delta
                lo = torch.where((below >= c.s_min) & (below > r), below, s)
                frozen = tuple(part.detach() for part in m)
                head_hi = self.flow_head(frozen, y_s + column(hi - s) * v, hi, r)
                head_lo = self.flow_head(frozen, y_s + column(lo - s) * v, lo, r)
                jvp = (head_lo - head_hi) / column((hi - lo).clamp(min=1e-9))
                target = v - column(s - r) * jvp
        square = (u - target).square().flatten(1).sum(1)
        constant = c.norm_const_per_dim * self.x[0].numel()
        loss = (square / (square.detach() + constant)).mean()
        loss.backward()
        return loss

    def generate(self):
        s, x1 = self.c.student, torch.randn(self.shape)
        y1, t = torch.randn(self.shape), self.outer_times()
        m, y = self.backbone(noised(self.x, x1, t), t, self.text), y1
        grid = time_grid(s.inner_steps, s.inner_shift, s.t_max)
        for j in range(s.inner_steps, 0, -1):
            high = torch.full((self.batch,), grid[j], dtype=torch.float64)
            low = torch.full((self.batch,), grid[j - 1], dtype=torch.float64)
            y = y - (grid[j] - grid[j - 1]) * (y1 - self.flow_head(m, y, high, low))
        return x1 - y

    def logits(self, features):
        return torch.cat([head(f) for head, f in zip(self.discriminator, features)], dim=1)

    def student_step(self):
        c, taps = self.c.stage2, tuple(self.c.discriminator.features)
        x_hat, eps, t = self.generate(), torch.randn(self.shape), self.times(c.t_shift)
        x_hat_t = noised(x_hat, eps, t)
        v, features = self.teacher(x_hat_t, t, self.text, taps)
        with torch.no_grad():
            v_teacher = v.detach()
            if c.guidance != 1:
                negative, _ = self.teacher(x_hat_t.detach(), t, self.neg_text)
                v_teacher = negative + c.guidance * (v_teacher - negative)
            v_fake, _ = self.fake(x_hat_t.detach(), t, self.text)
            difference = -column(t) * (v_fake - v_teacher)
            norm = difference.abs().flatten(1).sum(1).clamp(min=1e-30)
            direction = difference / norm.view(-1, 1, 1, 1, 1)
        loss = (direction * x_hat).flatten(1).sum(1).mean()
        if c.gan_weight > 0:
            loss = loss + c.gan_weight * F.softplus(-self.logits(features)).mean()
        loss.backward()
        return loss

    def critic_step(self):
        c, taps = self.c.stage2, tuple(self.c.discriminator.features)
        with torch.no_grad():
            x_hat = self.generate()
            eps, t = torch.randn(self.shape), self.times(c.t_shift)
            x_hat_t, x_real_t = noised(x_hat, eps, t), noised(self.x, eps, t)
        v, _ = self.fake(x_hat_t, t, self.text)
        loss = F.mse_loss(x_hat_t - column(t) * v, x_hat)
        loss.backward()
        if c.gan_weight > 0:
            for x_t, sign in ((x_hat_t, 1), (x_real_t, -1)):
                with torch.no_grad():
                    _, features = self.teacher(x_t, t, self.text, taps, True)
                part = F.softplus(sign * self.logits(features)).mean()
                part.backward()
                loss = loss.detach() + part.detach()
        return loss


# ---- configurations and measurement

def value_of(text):
    if text.startswith("["):
        return [value_of(item) for item in text[1:-1].split(", ") if item]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return {"true": True, "false": False}.get(text, text.strip('"'))


def resolved_config(tmd, arguments):
    """What `tmd config` prints, as nested namespaces."""
    command = [tmd, "config", *arguments]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    config = section = SimpleNamespace()
    for line in filter(None, text.splitlines()):
        key, _, value = line.strip().partition(":")
        if not line.startswith(" "):
            section = config if value else SimpleNamespace()
            if not value:
                setattr(config, key, section)
                continue
        setattr(section, key, value_of(value.strip()))
    return config


def refuse_what_is_not_here(config):
    kind = config.discriminator.type
    if config.train.stage == "stage2" and kind != "conv3d":
        sys.exit(f"discriminator.type is {kind}, expected conv3d: the others are not written in PyTorch here")


def bench(tmd, arguments, video, seconds, what, **environment):
    """The sections that `tmd bench` writes."""
    frames, height, width = map(str, video)
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        subprocess.run([tmd, "bench", *arguments, "--what", what, "--frames", frames, "--height",
                        height, "--width", width, "--seconds", str(seconds), "--json", file.name],
                       check=True, stdout=subprocess.DEVNULL, env=dict(os.environ, **environment))
        return json.load(open(file.name))["sections"]


def row_seconds(sections, name):
    """Seconds of the rows of that name, by the first word of their section."""
    return {s["name"].split()[0]: row["seconds"] for s in sections for row in s["rows"]
            if row["name"] == name}


def time_tmd(tmd, arguments, video, seconds, threads):
    """Seconds of a whole iteration, by kind of step."""
    sections = bench(tmd, arguments, video, seconds / 4, "step", OMP_NUM_THREADS=str(threads))
    return row_seconds(sections, "whole iteration")


def time_pytorch(run, seconds, finish=lambda: None):
    """Median seconds of run(); `finish` waits for a device."""
    def timed():
        start = time.perf_counter()
        run()
        finish()
        return time.perf_counter() - start

    for _ in range(3):
        timed()
    times, begin = [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - begin < seconds:
        times.append(timed())
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tmd", help="the program to measure")
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="turns of the two programs")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    overrides, video = SIZES[args.size]
    print(f"{args.size}: {args.threads} threads, PyTorch {torch.__version__}, "
          f"medians of {args.rounds} rounds, ms per iteration")
    print(f"  {'step':10} {'tmd':>9} {'PyTorch':>9} {'PyTorch / tmd':>14}")
    for stage, kinds in STEPS.items():
        arguments = [str(ROOT / "configs" / "tiny" / f"{stage}.yaml"), *overrides]
        config = resolved_config(args.tmd, arguments)
        refuse_what_is_not_here(config)
        trainer = Trainer(config, video, stage)
        ours, theirs = {kind: [] for kind in kinds}, {kind: [] for kind in kinds}
        for _ in range(args.rounds):
            measured = time_tmd(args.tmd, arguments, video, args.seconds, args.threads)
            for kind in kinds:
                ours[kind].append(measured[kind])
                theirs[kind].append(time_pytorch(partial(trainer.iterate, kind), args.seconds))
        for kind in kinds:
            a, b = statistics.median(ours[kind]), statistics.median(theirs[kind])
            print(f"  {kind:10} {1e3 * a:9.2f} {1e3 * b:9.2f} {b / a:14.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
