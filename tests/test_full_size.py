"""Full-size recipes resolve, and count as many parameters as their papers or reference code say."""

from pathlib import Path

import pytest

import danlu

FOLDER = Path(__file__).resolve().parents[1] / "recipes/full-size"
PUBLISHED = {
    "gpt2-124m": 124_439_808,  # the released checkpoints, as counted in their weight files
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "gpt3-175b": 174_604_259_328,  # by the formula below; the paper says 175.0B
    "resnet-50": 25_557_032,  # torchvision's models
    "vgg-16": 138_357_544,
    "deepspeech-2": 38_371_869,  # by the formula below; the paper says 38 million
    "bert-base": 109_482_240 + 1_538,  # bert-base-uncased with its pooler; and the matrix and bias of two classes
    "vit-b": 86_567_656,
    "wavenet": 46_779_648,  # by the formula below
}


def test_every_full_size_recipe_is_counted():
    assert {path.stem for path in FOLDER.glob("*.toml")} <= set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_the_published_ones(name):
    assert danlu.check(FOLDER / f"{name}.toml").n_parameters == PUBLISHED[name]


def test_gpt3_by_hand():
    layers, width, context, vocabulary = 96, 12288, 2048, 50257
    by_hand = layers * (12 * width**2 + 13 * width) + (vocabulary + context) * width + 2 * width
    assert by_hand == PUBLISHED["gpt3-175b"]


def test_deep_speech_2_by_hand():
    """Table 1 of the paper ("7 RNN, 9 total"; 38 million): one convolution over time of all 161 bins, 7 layers whose two
    directions share the input's matrix, one full layer; a gain and a shift of batch norm for each of the 9."""
    bins, taps, width, letters = 161, 11, 1280, 28
    layers = 7 * (width**2 + 2 * width**2) + width**2
    by_hand = bins * taps * width + layers + 9 * 2 * width + (width + 1) * (letters + 1)
    assert by_hand == PUBLISHED["deepspeech-2"]
    assert round(by_hand / 1e6) == 38


def test_bert_base_by_hand():
    layers, width, hidden, words, positions, segments = 12, 768, 3072, 30_522, 512, 2
    tables = (words + positions + segments) * width + 2 * width
    block = 4 * (width**2 + width) + 2 * width * hidden + hidden + width + 4 * width
    pooler = width**2 + width
    assert tables + layers * block + pooler == 109_482_240
    assert PUBLISHED["bert-base"] == 109_482_240 + 2 * width + 2


def test_wavenet_by_hand():
    """The default network of github.com/kan-bayashi/PytorchWaveNetVocoder (nets/wavenet.py), layer by layer, without its
    28 acoustic features; then what danlu leaves out because it changes nothing, and what it puts in for speakers."""
    levels, residual, skip, layers, speakers = 256, 512, 256, 30, 109
    causal = 2 * levels * residual + residual
    dilated = 2 * (2 * residual * residual + residual)  # tanh and sigmoid, kernel 2
    to_skip, onward = residual * skip + skip, residual * residual + residual
    post = skip * skip + skip + skip * levels + levels
    published = causal + layers * (dilated + to_skip + onward) + post
    assert published == 43_701_760
    left_out = residual + (layers - 1) * skip + onward  # biases that add to others; the last layer's unused way on
    told_speakers = speakers * layers * 2 * residual
    assert published - left_out + told_speakers == PUBLISHED["wavenet"]
