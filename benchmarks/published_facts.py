"""Published training runs: facts only, each with its source, and whether that was read while this file was written or is
recalled. Nothing that was found and can be expressed here was left out for its error; runs in fp8 and mixtures of experts
are outside of what danlu estimates."""

from __future__ import annotations

from dataclasses import dataclass

from danlu.models.decoder_settings import DecoderShape
from danlu.planning.parallel_layouts import Layout


@dataclass(frozen=True)
class Fact:
    """One published run or timing."""

    name: str
    run: str
    """Rows of one run or one study share it: errors are given with the whole study held out."""
    shape: DecoderShape
    accelerator: str
    n_devices: int
    batch: int
    """Samples in one update."""
    tokens_per_s: float
    """Of one device: what was reported, or follows from it."""
    whole: bool
    """True: device-hours of a whole run, with all that went wrong; False: a timing of steps."""
    reported: str
    source: str
    read: bool
    attention: str = "fused"
    layout: Layout | None = None
    """As published; None: not known in full, danlu's best layout is taken."""
    guessed: str = ""
    """What had to be assumed."""


def decoder(L: int, D: int, a: int, F: int = 0, k: int = 0, s: int = 2048, V: int = 51200, gated: bool = False, H: int = 0) -> DecoderShape:  # fmt: skip
    """A shape from its usual letters (planning/parallel_layouts.py)."""
    gpt = not gated
    return DecoderShape(L, D, a, k or a, H or D // a, F or 4 * D, s, V, gated, gpt, gpt, gpt, gpt)


def megatron_flops(L: int, h: int, V: int = 51200, s: int = 2048) -> float:
    """FLOPs a token as 2104.04473, equation 3 counts them, recomputation included: 96 L h^2 (1 + s/6h + V/16Lh)."""
    return 96 * L * h**2 * (1 + s / (6 * h) + V / (16 * L * h))


def model_flops(L: int, h: int, V: int = 51200, s: int = 2048) -> float:
    """FLOPs a token as 2205.05198, appendix A counts them, without it: 72 L h^2 (1 + s/6h + V/12Lh)."""
    return 72 * L * h**2 * (1 + s / (6 * h) + V / (12 * L * h))


def palm_flops(shape: DecoderShape) -> float:
    """FLOPs a token as PaLM's and Llama 3's MFU counts them: 6 N + 12 L a H s, attention in full (2204.02311, appendix B)."""
    return 6 * shape.n_parameters + 12 * shape.n_layers * shape.n_heads * shape.head_width * shape.context


def megatron_2021() -> list[Fact]:
    """Narayanan et al. 2021, table 1."""
    rows = [
        (24, 2304, 24, 1, 1, 32, 512, 137), (30, 3072, 32, 2, 1, 64, 512, 138), (36, 4096, 32, 4, 1, 128, 512, 142),
        (40, 6144, 48, 8, 1, 256, 1024, 135), (48, 8192, 64, 8, 2, 512, 1536, 138), (60, 10240, 80, 8, 4, 1024, 1792, 140),
        (80, 12288, 96, 8, 8, 1536, 2304, 148), (96, 16384, 128, 8, 16, 1920, 2160, 155),
        (105, 20480, 128, 8, 35, 2520, 2520, 163), (128, 25600, 160, 8, 64, 3072, 3072, 163),
    ]  # fmt: skip
    found = []
    for L, h, a, t, p, n, batch, tflops in rows:
        layout = Layout(n // t // p, t, p, zero=0, micro_batch=1, recompute="full")
        shape = decoder(L, h, a)
        found.append(Fact(
            f"Megatron-LM {shape.n_parameters / 1e9:.1f}B", "Megatron-LM 2021", shape, "a100-80gb", n, batch,
            tflops * 1e12 / megatron_flops(L, h), False, f"{tflops} TFLOP/s a GPU, recomputation counted",
            "arxiv.org/abs/2104.04473, table 1", False, "blocks", layout, "micro-batch 1, not interleaved",
        ))  # fmt: skip
    return found


def korthikanti() -> list[Fact]:
    """Korthikanti et al. 2022, table 5: one data rank."""
    rows = [(48, 6144, 64, 1, 8, 4, 4, 1, 41.5), (96, 12288, 96, 8, 64, 64, 1, 3, 51.4), (105, 20480, 128, 35, 280, 280, 1, 3, 56.0), (128, 25600, 160, 64, 512, 512, 1, 1, 56.3)]  # fmt: skip
    return [
        Fact(
            f"Megatron-LM {decoder(L, h, a).n_parameters / 1e9:.0f}B, sequence parallel",
            "Megatron-LM 2022",
            decoder(L, h, a),
            "a100-80gb",
            n,
            batch,
            mfu / 100 * 312e12 / model_flops(L, h),
            False,
            f"MFU {mfu}%",
            "arxiv.org/abs/2205.05198, table 5; MFU of 1T read in Megatron-LM's README",
            n == 512,
            "blocks",
            Layout(1, 8, p, zero=0, micro_batch=b, recompute="selective", chunks=v),
        )  # fmt: skip
        for L, h, a, p, n, batch, b, v, mfu in rows
    ]


def nlg() -> list[Fact]:
    """Smith et al. 2022, MT-NLG 530B: seconds of an update on three sizes of cluster."""
    rows = [(2240, 60.1), (2800, 50.2), (3360, 44.4)]
    shape = decoder(105, 20480, 128, V=50272)
    return [
        Fact(
            f"MT-NLG 530B on {n:,}",
            "MT-NLG",
            shape,
            "a100-80gb",
            n,
            1920,
            1920 * 2048 / seconds / n,
            False,
            f"{seconds} s an update",
            "arxiv.org/abs/2201.11990, section 2.4, read in github.com/cli99/llm-analysis",
            True,
            "blocks",
            Layout(n // 280, 8, 35, zero=1, micro_batch=1, recompute="full"),
            "micro-batch 1",
        )  # fmt: skip
        for n, seconds in rows
    ]


def big_runs() -> list[Fact]:
    """Large models of 2020 to 2022."""
    gpt3, opt, bloom = (
        decoder(96, 12288, 96, V=50257),
        decoder(96, 12288, 96, V=50272),
        decoder(70, 14336, 112, V=250880),
    )
    palm = decoder(118, 18432, 48, F=73728, k=1, V=256000, gated=True, H=256)
    return [
        Fact("GPT-3 175B, as first trained", "GPT-3", gpt3, "v100", 10000, 1600, 0.213 * 125e12 / palm_flops(gpt3), False, "MFU 21.3%", "arxiv.org/abs/2204.02311, table 3", False, "blocks", None, "10,000 GPUs"),
        Fact("GPT-3 175B, Megatron's estimate", "GPT-3", gpt3, "a100-80gb", 1024, 1536, 300e9 / (34 * 86400 * 1024), True, "34 days for 300B tokens", "arxiv.org/abs/2104.04473, section 5.1", False, "blocks", Layout(16, 8, 8, zero=0, micro_batch=1, recompute="full"), "layout"),
        Fact("OPT-175B, steps", "OPT-175B", opt, "a100-80gb", 992, 992, 147e12 / megatron_flops(96, 12288, 50272), False, "147 TFLOP/s a GPU", "arxiv.org/abs/2205.01068, section 2.3", False, "blocks", Layout(124, 8, 1, zero=3, micro_batch=8, recompute="full"), "micro-batch 8; recomputation counted"),
        Fact("OPT-175B, whole run", "OPT-175B", opt, "a100-80gb", 992, 992, 300e9 / (809472 * 3600), True, "809,472 GPU-hours for 300B tokens", "github.com/facebookresearch/metaseq, OPT-175B logbook and model card", False, "blocks", Layout(124, 8, 1, zero=3, micro_batch=8, recompute="full"), "micro-batch 8"),
        Fact("BLOOM-176B, steps", "BLOOM", bloom, "a100-80gb", 384, 2048, 150e12 / megatron_flops(70, 14336, 250880), False, "150 TFLOP/s a GPU, recomputation counted", "bigscience.notion.site, summary; layout in bigscience/train/tr11-176B-ml/chronicles.md", True, "blocks", Layout(8, 4, 12, zero=1, micro_batch=2, recompute="full")),
        Fact("BLOOM-176B, whole run", "BLOOM", bloom, "a100-80gb", 384, 2048, 366e9 / (1_082_990 * 3600), True, "1,082,990 GPU-hours for 366B tokens", "arxiv.org/abs/2211.05100, read at ai-papers.xuzou.cn/papers/bloom_2022", True, "blocks", Layout(8, 4, 12, zero=1, micro_batch=2, recompute="full")),
        Fact("PaLM 540B", "PaLM", palm, "tpu-v4", 6144, 2048, 238.3e3 / 6144, False, "238,300 tokens/s", "arxiv.org/abs/2204.02311, section 4", False, "blocks", Layout(512, 12, 1, zero=3, micro_batch=1, recompute="full"), "micro-batch; layers made parallel are counted as in sequence"),
    ]  # fmt: skip


def llamas() -> list[Fact]:
    """LLaMA 1, 2 and 3: whole runs, and Llama 3 405B's steps."""
    old = [("7B", 32, 4096, 32, 11008, 1.0e12, 82_432), ("13B", 40, 5120, 40, 13824, 1.0e12, 135_168), ("33B", 60, 6656, 52, 17920, 1.4e12, 530_432), ("65B", 80, 8192, 64, 22016, 1.4e12, 1_022_362)]  # fmt: skip
    two = [("7B", 32, 4096, 32, 11008, 32, 184_320, True), ("13B", 40, 5120, 40, 13824, 40, 368_640, False), ("34B", 48, 8192, 64, 22016, 8, 1_038_336, False), ("70B", 80, 8192, 64, 28672, 8, 1_720_320, True)]  # fmt: skip
    shapes = {"8B": (32, 4096, 32, 14336), "70B": (80, 8192, 64, 28672), "405B": (126, 16384, 128, 53248)}
    three = {n: decoder(L, D, a, F, 8, 8192, 128256, True) for n, (L, D, a, F) in shapes.items()}
    big = three["405B"]
    long = decoder(126, 16384, 128, 53248, 8, 131072, 128256, True)
    herd = "arxiv.org/abs/2407.21783, table 4, read at glennklockwood.com/garden/llama-3.1"
    card = "github.com/meta-llama model cards, read at aiportalx.com and greaterwrong.com"
    found = [
        Fact(f"LLaMA {n}", "LLaMA", decoder(L, D, a, F, V=32000, gated=True), "a100-80gb", 2048, 2048, tokens / hours / 3600, True, f"{hours:,} GPU-hours for {tokens / 1e12:g}T tokens", "arxiv.org/abs/2302.13971, read at ai-papers.xuzou.cn/papers/llama_2023", True, guessed="2,048 GPUs" if n != "65B" else "")
        for n, L, D, a, F, tokens, hours in old
    ] + [
        Fact(f"Llama 2 {n}", "Llama 2", decoder(L, D, a, F, k, 4096, 32000, True), "a100-80gb", 1024, 1024, 2e12 / hours / 3600, True, f"{hours:,} GPU-hours for 2T tokens", "arxiv.org/abs/2307.09288, table 2; 7B and 70B read at aiportalx.com", read, guessed="1,024 GPUs")
        for n, L, D, a, F, k, hours, read in two
    ]  # fmt: skip
    runs = [("8B", 1.3e6, 15e12, 2048, 512), ("70B", 6.4e6, 15e12, 8192, 2048), ("405B", 30.84e6, 15.6e12, 16384, 2048)]
    found += [
        Fact(f"Llama 3 {n}, whole run", "Llama 3", three[n], "h100", devices, batch, tokens / hours / 3600, True, f"{hours / 1e6:g}M GPU-hours for {tokens / 1e12:g}T tokens", card, True, "fused", Layout(128, 8, 16, micro_batch=1, chunks=4) if n == "405B" else None, f"{devices:,} GPUs" if n != "405B" else "")
        for n, hours, tokens, devices, batch in runs
    ]  # fmt: skip
    steps = [(8192, 64, 1, 430, big, 2048), (16384, 128, 1, 400, big, 2048), (16384, 8, 16, 380, long, 128)]
    return found + [
        Fact(f"Llama 3 405B on {n:,}, {shape.context:,} tokens", "Llama 3", shape, "h100", n, batch, tflops * 1e12 / palm_flops(shape), False, f"{tflops} TFLOP/s a GPU", herd, True, "fused", Layout(d, 8, 16, c, micro_batch=1, chunks=4), "4 chunks a stage")
        for n, d, c, tflops, shape, batch in steps
    ]  # fmt: skip


def titan() -> list[Fact]:
    """torchtitan's benchmarks: bf16 rows."""
    llama = {n: decoder(L, D, a, F, 8, 8192, 128256, True) for n, L, D, a, F in (("8B", 32, 4096, 32, 14336), ("70B", 80, 8192, 64, 28672), ("405B", 126, 16384, 128, 53248))}  # fmt: skip
    rows = [
        ("8B, compiled", "8B", "h100", 8, Layout(8, zero=3, micro_batch=2, recompute="selective"), 16, 6667, "benchmarks/llama3_h100_202412_torchtitan.md, table 1"),
        ("8B", "8B", "h100", 8, Layout(8, zero=3, micro_batch=2, recompute="selective"), 16, 5762, "benchmarks/llama3_h100_202412_torchtitan.md, table 1"),
        ("8B, compiled", "8B", "h100", 128, Layout(128, zero=3, micro_batch=2, recompute="selective"), 256, 6514, "benchmarks/llama3_h100_202412_torchtitan.md, table 3"),
        ("8B", "8B", "h100", 128, Layout(128, zero=3, micro_batch=2, recompute="selective"), 256, 5605, "benchmarks/llama3_h100_202412_torchtitan.md, table 3"),
        ("70B, TP 8", "70B", "h100", 256, Layout(32, 8, zero=3, micro_batch=16, recompute="full"), 512, 597.3, "benchmarks, asyncTP of June 2025"),
        ("70B, async TP 8", "70B", "h100", 256, Layout(32, 8, zero=3, micro_batch=16, recompute="full"), 512, 652.4, "benchmarks, asyncTP of June 2025"),
        ("8B, TP 8", "8B", "h100", 64, Layout(8, 8, zero=3, micro_batch=12, recompute="selective"), 96, 4378, "benchmarks, asyncTP of June 2025"),
        ("8B, async TP 8", "8B", "h100", 64, Layout(8, 8, zero=3, micro_batch=12, recompute="selective"), 96, 4809.4, "benchmarks, asyncTP of June 2025"),
        ("8B", "8B", "a100-80gb", 64, Layout(64, zero=3, micro_batch=1, recompute="selective"), 64, 2904, "docs/performance.md of 2024"),
        ("70B", "70B", "a100-80gb", 64, Layout(64, zero=3, micro_batch=1, recompute="full"), 64, 331, "docs/performance.md of 2024"),
        ("405B, TP 8", "405B", "h100", 128, Layout(16, 8, zero=3, micro_batch=2, recompute="full"), 32, 109, "docs/performance.md of 2024"),
    ]  # fmt: skip
    return [
        Fact(f"torchtitan Llama 3 {what} on {n}", "torchtitan", llama[size], kind, n, batch, speed, False, f"{speed:,} tokens/s a GPU", f"github.com/pytorch/torchtitan, {where}", True, "fused", layout, "H100s of 96 GB held to 500 W" if kind == "h100" else "")
        for what, size, kind, n, layout, batch, speed, where in rows
    ]  # fmt: skip


def mosaic() -> list[Fact]:
    """MosaicML's MPT benchmarks (FSDP): 2,048 tokens on every size of cluster, and longer samples on 8 GPUs; bf16."""
    shapes = {"1b": (24, 2048, 16), "3b": (32, 2560, 20), "7b": (32, 4096, 32), "13b": (40, 5120, 40), "30b": (48, 7168, 56), "70b": (80, 8192, 64)}  # fmt: skip
    h100 = [
        ("70b", 2048, 64, 8, 2048, True, 1039), ("70b", 2048, 32, 2, 1024, True, 882), ("30b", 8192, 8, 1, 168, True, 1384),
        ("30b", 4096, 8, 1, 168, True, 1802), ("30b", 2048, 32, 14, 1344, True, 2308), ("30b", 2048, 16, 10, 480, True, 2263),
        ("30b", 2048, 8, 3, 504, True, 2002), ("13b", 32768, 8, 1, 24, True, 1976), ("13b", 16384, 8, 3, 72, True, 2985),
        ("13b", 4096, 8, 10, 240, True, 4717), ("13b", 2048, 64, 2, 128, False, 4800), ("13b", 2048, 32, 2, 64, False, 4811),
        ("13b", 2048, 16, 2, 32, False, 4767), ("13b", 2048, 8, 2, 16, False, 4792), ("7b", 65536, 8, 1, 16, True, 1956),
        ("7b", 32768, 8, 2, 32, True, 3318), ("7b", 8192, 8, 8, 128, True, 6935), ("7b", 4096, 8, 16, 256, True, 8611),
        ("7b", 2048, 8, 6, 48, False, 10643), ("3b", 32768, 8, 3, 144, True, 5873), ("3b", 8192, 8, 3, 144, False, 16578),
        ("3b", 2048, 64, 6, 1152, False, 22525), ("3b", 2048, 32, 6, 576, False, 23021), ("3b", 2048, 16, 10, 480, False, 24142),
        ("1b", 8192, 8, 3, 96, False, 29157), ("1b", 2048, 64, 20, 1280, False, 44402), ("1b", 2048, 32, 20, 640, False, 45130),
        ("1b", 2048, 16, 20, 320, False, 46037), ("1b", 2048, 8, 14, 112, False, 45455),
    ]  # fmt: skip
    a100 = [
        ("70b", 2048, 64, 8, 2048, True, 410), ("70b", 2048, 32, 2, 1024, True, 373), ("30b", 8192, 8, 1, 168, True, 574),
        ("30b", 4096, 8, 1, 168, True, 814), ("30b", 2048, 8, 3, 504, True, 916), ("13b", 32768, 8, 1, 24, True, 1016),
        ("13b", 16384, 8, 3, 72, True, 1431), ("13b", 8192, 8, 5, 120, True, 1795), ("13b", 4096, 8, 10, 240, True, 2060),
        ("13b", 2048, 8, 2, 48, False, 2262), ("7b", 65536, 8, 1, 16, True, 1013), ("7b", 32768, 8, 2, 32, True, 1672),
        ("7b", 16384, 8, 4, 64, True, 2453),
    ]  # fmt: skip
    source = "github.com/mosaicml/llm-foundry, scripts/train/benchmarking/README.md"
    return [
        Fact(
            f"MPT {size}, {s:,} tokens, {n} {kind[:4]}",
            f"MosaicML {kind[:4]}",
            decoder(*shapes[size], s=s, V=50368),
            kind,
            n,
            batch,
            float(speed),
            False,
            f"{speed:,} tokens/s a GPU",
            source,
            True,
            "fused",
            Layout(n, zero=3, micro_batch=b, recompute="full" if again else "none"),
        )  # fmt: skip
        for kind, rows in (("h100", h100), ("a100-80gb", a100))
        for size, s, n, b, batch, again, speed in rows
    ]


FACTS = [*big_runs(), *llamas(), *megatron_2021(), *korthikanti(), *nlg(), *titan(), *mosaic()]
