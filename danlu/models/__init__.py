"""SHELF: what learns. One line a member: kind -> its settings class (torch-free), which builds the network.

decoder.py        the GPT, one page            decoder_settings.py   its dials and arithmetic
layers.py         norm, heads, activation      generate.py           tokens out
transformer.py    attention both ways and across, blocks, dropout: for encoders, translators, vision
"""

from danlu.base.settings import Settings
from danlu.models.convnet_settings import Lenet, Resnet, Vgg
from danlu.models.convtagger_settings import Convtagger
from danlu.models.decoder_settings import Decoder
from danlu.models.deepspeech_settings import Deepspeech
from danlu.models.detector_settings import Detector
from danlu.models.encoder_settings import Encoder
from danlu.models.fold_settings import Fold
from danlu.models.forecast_settings import Dlinear, Nlinear
from danlu.models.hub_settings import Hub
from danlu.models.mlp_settings import Mlp
from danlu.models.module_settings import Module
from danlu.models.recurrent_settings import Recurrent
from danlu.models.seq2seq_settings import Seq2Seq
from danlu.models.vit_settings import Vit
from danlu.models.wavenet_settings import Wavenet

MODELS: dict[str, type[Settings]] = {
    "decoder": Decoder,
    "hub": Hub,
    "mlp": Mlp,
    "lenet": Lenet,
    "vgg": Vgg,
    "resnet": Resnet,
    "detector": Detector,
    "vit": Vit,
    "nlinear": Nlinear,
    "dlinear": Dlinear,
    "recurrent": Recurrent,
    "convtagger": Convtagger,
    "wavenet": Wavenet,
    "deepspeech": Deepspeech,
    "encoder": Encoder,
    "fold": Fold,
    "seq2seq": Seq2Seq,
    "module": Module,
}
