"""Text models that people bring, against the user's network called by hand on ids."""

import threading

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from torch.func import functional_call

from unilens.errors import UnilensError
from unilens.text import TextClassifier, explain_text, html, load_text_classifier
from unilens.text.alignment import align, words_between_spaces
from unilens.text.limits import LookupsInBounds, longest_that_runs

from ..text_models import ARCHITECTURES, tiny, tiny_bert, tiny_gpt2, tiny_tokenizer

TEXT = "the film was not good"
WORDS = 5
"""Each of them is in the text once, so that its row of the table is its place in the text."""
LIMITS = {
    "Bert": 32, "Roberta": 30, "DebertaV2": 32, "DistilBert": 32, "Electra": 32, "Longformer": 30,
    "BigBird": 32, "GPT2": 32, "OPT": 32, "Bart": 32,
}  # fmt: skip
BOUNDLESS = sorted(set(ARCHITECTURES) - set(LIMITS))


def logits(network, text, tokenizer=None):
    """The logits `(K,)` of a network called as its user calls it."""
    read = (tokenizer or tiny_tokenizer())(text, return_tensors="pt")
    with torch.no_grad():
        return network(input_ids=read["input_ids"], attention_mask=read["attention_mask"]).logits[0]


def ig_over_the_table(network, ids, own, target, n_steps=4):
    """IG from zero `(L,)`, on ids alone: the rows of the text's own words move in the table."""
    table = network.get_input_embeddings().weight.detach()
    name = next(
        name
        for name, value in network.named_parameters()
        if value is network.get_input_embeddings().weight
    )
    rows, total = ids[0, own], torch.zeros(len(own), table.shape[1], dtype=torch.float64)
    for node, weight in zip(*np.polynomial.legendre.leggauss(n_steps), strict=True):
        moved = table.clone()
        moved[rows] *= (node + 1) / 2
        moved.requires_grad_()
        outputs = functional_call(network, {name: moved}, (ids,))
        (gradient,) = torch.autograd.grad(outputs.logits.softmax(-1)[0, target], moved)
        total += weight / 2 * gradient[rows]
    return (total * table[rows]).sum(1)


def expect_ig(network, tokenizer, explanation, added=1):
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    own = list(range(added, added + WORDS))
    expected = ig_over_the_table(network, ids, own, int(explanation.attribution.target))
    scale = float(expected.abs().max())
    assert scale > 1e-9
    assert float((explanation.token_values - expected).abs().max()) <= 1e-6 * scale


def words(count):
    return " ".join(["film"] * count)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_text_ig_of_an_architecture_is_that_over_its_table(name):
    network, tokenizer = tiny(name), tiny_tokenizer()
    explanation = explain_text(
        TextClassifier(network, tokenizer), TEXT, "ig", baseline="zero", n_steps=4
    )
    expected = logits(network, TEXT)
    assert int(explanation.attribution.target) == int(expected.argmax())
    assert explanation.attribution.outputs[0].tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    expect_ig(network, tokenizer, explanation)


@pytest.mark.parametrize("name", LIMITS)
def test_text_limit_is_where_the_network_ends(name):
    network, most = tiny(name), LIMITS[name]
    classifier = TextClassifier(network, tiny_tokenizer())
    with pytest.raises((IndexError, RuntimeError)):
        logits(network, words(most - 1))  # one more than it takes, with two that are added
    encoded = classifier.encode(words(most - 2))
    assert encoded.embeddings.shape[2] == most - 2
    assert encoded.notes == ()
    with torch.no_grad():
        at_most = encoded.model(encoded.embeddings)[0]
    assert at_most.tolist() == pytest.approx(logits(network, words(most - 2)).tolist())
    for more in (1, 20):
        with pytest.raises(
            UnilensError, match=f"at most {most} tokens, got {most + more} "
        ) as raised:
            classifier.encode(words(most - 2 + more))
        assert "\n" not in str(raised.value)


def test_text_limit_follows_the_padding_index():
    classifier = TextClassifier(tiny("Roberta", pad_token_id=4), tiny_tokenizer())
    with pytest.raises(UnilensError, match="at most 27 tokens, got 32"):
        classifier.encode(words(30))


@pytest.mark.parametrize("name", BOUNDLESS)
def test_text_without_limit_is_explained_at_any_length(name):
    network = tiny(name)
    explanation = explain_text(TextClassifier(network, tiny_tokenizer()), words(60), "occlusion")
    expected = logits(network, words(60)).tolist()
    assert explanation.attribution.outputs[0].tolist() == pytest.approx(expected, abs=1e-6)
    noted = getattr(network.config, "max_position_embeddings", None) == 32
    assert len(explanation.notes) == noted
    if noted:
        assert (
            "62 tokens, more than the model's max_position_embeddings of 32" in explanation.notes[0]
        )
        assert explanation.notes[0].replace("'", "&#39;") in html(explanation)


def test_text_longer_than_the_tokenizer_says():
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = 10
    classifier = TextClassifier(tiny("T5"), tokenizer)
    with pytest.raises(
        UnilensError, match=r"at most 10 tokens, got 12 .* raise tokenizer.model_max"
    ):
        classifier.encode(words(10))
    for unknown in (int(1e30), 0):
        tokenizer.model_max_length = unknown
        assert classifier.encode(words(10)).embeddings.shape[2] == 10


def test_text_limit_is_found_by_bisection():
    def run(count):
        if count > 7:
            raise AssertionError

    assert longest_that_runs(run, 1000) == 7
    assert longest_that_runs(run, 8) == 7

    def never(count):
        raise KeyError(count)

    assert longest_that_runs(never, 1000) == 0


def test_text_limit_is_found_without_runs_far_beyond_it():
    tried = []

    def run(count):
        tried.append(count)
        assert count <= 1000

    assert longest_that_runs(run, 10**20) == 1000
    assert max(tried) <= 2 * 1000


def test_text_lookups_are_checked_before_they_run():
    layer = nn.Embedding(4, 2)
    with LookupsInBounds():
        assert torch.equal(layer(torch.tensor([3])), layer.weight[3:])
        with pytest.raises(IndexError, match="index 4 of a table of 4"):
            layer(torch.tensor([1, 4]))


def test_text_of_a_network_that_fails_at_every_length():
    class Fails(transformers.BertForSequenceClassification):
        def forward(self, input_ids=None, attention_mask=None):
            raise AssertionError("no such luck\nat all")

    classifier = TextClassifier(Fails(tiny_bert().config).eval(), tiny_tokenizer())
    with pytest.raises(
        UnilensError, match=r"runs on what the tokenizer gives, got Fails: no such luck$"
    ):
        classifier.encode(TEXT)


def test_text_that_memory_does_not_hold():
    class Large(transformers.BertForSequenceClassification):
        def forward(self, input_ids=None, attention_mask=None):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")

    classifier = TextClassifier(Large(tiny_bert().config).eval(), tiny_tokenizer())
    with pytest.raises(
        UnilensError, match="ran out of memory at a text of 7 tokens; explain it in"
    ):
        classifier.encode(TEXT)


@pytest.mark.parametrize("name", ["GPT2", "Llama"])
@pytest.mark.parametrize("pad", [None, 3])
def test_text_of_a_decoder_is_pooled_where_its_ids_say(name, pad):
    """Without a padding token it takes one text per pass; [SEP] as one is not pooled."""
    network, tokenizer = tiny(name), tiny_tokenizer()
    network.config.pad_token_id = pad
    classifier = TextClassifier(network, tokenizer)
    explanation = explain_text(classifier, TEXT, "ig", baseline="zero", n_steps=4)
    expect_ig(network, tokenizer, explanation)
    if pad is not None:
        network.config.pad_token_id = 0
        assert not torch.allclose(logits(network, TEXT), explanation.attribution.outputs[0])


def test_text_of_big_bird_leaves_its_sparse_attention():
    network = tiny("BigBird", max_position_embeddings=64)
    classifier = TextClassifier(network, tiny_tokenizer())
    classifier.encode(TEXT)
    assert network.bert.attention_type == "block_sparse"
    long = explain_text(classifier, words(50), "gradient").attribution.outputs[0]
    assert long.tolist() == pytest.approx(logits(network, words(50)).tolist(), abs=1e-6)
    network.bert.set_attention_type("original_full")
    assert not torch.allclose(long, logits(network, words(50)), atol=1e-4)


@pytest.mark.slow
def test_text_table_with_a_largest_norm_is_not_written_to():
    network = tiny_bert()
    layer = network.get_input_embeddings()
    layer.max_norm = 0.5
    before = layer.weight.clone()
    classifier = TextClassifier(network, tiny_tokenizer())
    explanation = explain_text(classifier, TEXT, n_steps=3)
    assert torch.equal(layer.weight, before)
    expected = logits(network, TEXT).tolist()  # which writes to it
    assert explanation.attribution.outputs[0].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["Canine", "Perceiver"])
def test_text_models_without_token_embeddings(name):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    if name == "Perceiver":
        sizes = {
            "d_model": 16, "d_latents": 16, "num_latents": 4, "num_blocks": 1,
            "num_self_attends_per_block": 1, "num_self_attention_heads": 2,
            "num_cross_attention_heads": 2, "vocab_size": 30,
        }  # fmt: skip
    config = getattr(transformers, f"{name}Config")(**sizes)
    network = getattr(transformers, f"{name}ForSequenceClassification")(config).eval()
    classifier = TextClassifier(network, tiny_tokenizer())
    with pytest.raises(UnilensError, match=f"a layer of token embeddings, got {name}"):
        explain_text(classifier, TEXT)


def test_text_models_without_weights_or_finite_logits():
    with torch.device("meta"):
        empty = transformers.BertForSequenceClassification(tiny_bert().config).eval()
    with pytest.raises(UnilensError, match="on the meta device"):
        explain_text(TextClassifier(empty, tiny_tokenizer()), TEXT)
    network = tiny_bert()
    with torch.no_grad():
        network.classifier.bias[0] = torch.nan
    with pytest.raises(UnilensError, match="expected finite logits, got NaN or infinity from Bert"):
        TextClassifier(network, tiny_tokenizer()).encode(TEXT)


@pytest.mark.parametrize("head", ["MaskedLM", "TokenClassification", "QuestionAnswering"])
def test_text_models_with_other_heads(head):
    config = tiny_bert().config
    network = getattr(transformers, f"BertFor{head}")(config).eval()
    with pytest.raises(
        UnilensError, match=r"expected outputs of shape \(1, classes\)|too many val"
    ):
        explain_text(TextClassifier(network, tiny_tokenizer()), TEXT)


@pytest.mark.parametrize("name", ["Roberta", "GPT2"])
def test_text_that_names_the_padding_token(name):
    network, tokenizer = tiny(name, pad_token_id=0), tiny_tokenizer()
    text = "the [PAD] film was [PAD]"
    explanation = explain_text(TextClassifier(network, tokenizer), text, "gradient")
    expected = logits(network, text).tolist()
    assert explanation.attribution.outputs[0].tolist() == pytest.approx(expected, abs=1e-9)
    assert explanation.tokens.names == ("the", "[PAD]", "film", "was", "[PAD]")


def test_text_of_a_tokenizer_with_more_tokens_than_the_model():
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["zzz"])
    classifier = TextClassifier(tiny_bert(), tokenizer)
    assert classifier.encode(TEXT).tokens.words[1] == "film"
    with pytest.raises(UnilensError, match="the model's 26 tokens, got token 26, 'zzz'; use the"):
        classifier.encode("a zzz film")


def test_text_inputs_that_the_network_does_not_take_are_left_out():
    tokenizer = tiny_tokenizer(model_input_names=["input_ids", "token_type_ids", "attention_mask"])
    network = tiny("DistilBert")
    explanation = explain_text(TextClassifier(network, tokenizer), TEXT, "gradient")
    expected = logits(network, TEXT).tolist()
    assert explanation.attribution.outputs[0].tolist() == pytest.approx(expected, abs=1e-6)


class Tensors(nn.Module):
    """A classifier of one's own around a network of transformers, which returns logits alone."""

    def __init__(self, network):
        super().__init__()
        self.network, self.config = network, network.config
        self.get_input_embeddings = network.get_input_embeddings

    def forward(self, **inputs):
        return self.network(**inputs).logits


def with_tuples(network):
    network.config.return_dict = False
    return network


WRAPPERS = {
    "DataParallel": lambda network: nn.DataParallel(network).eval(),
    "compiled": lambda network: torch.compile(network, backend="eager"),
    "tuples": with_tuples,
    "tensors": lambda network: Tensors(network).eval(),
    "frozen": lambda network: network.requires_grad_(False),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_text_of_a_wrapped_network(name):
    classifier = TextClassifier(WRAPPERS[name](tiny_bert()), tiny_tokenizer())
    explanation = explain_text(classifier, TEXT, "ig", baseline="zero", n_steps=4)
    expect_ig(tiny_bert(), tiny_tokenizer(), explanation)


def test_text_of_a_network_in_half_precision():
    half = tiny_bert().bfloat16()
    explanation = explain_text(
        TextClassifier(half, tiny_tokenizer()), TEXT, "ig", baseline="zero", n_steps=4
    )
    exact = tiny_bert().bfloat16().double()
    ids = tiny_tokenizer()(TEXT, return_tensors="pt")["input_ids"]
    expected = ig_over_the_table(exact, ids, range(1, 6), int(explanation.attribution.target))
    difference = float((explanation.token_values - expected).abs().max())
    assert difference <= 0.05 * float(expected.abs().max())


def byte_level():
    """A tokenizer of bytes and what occurs often, as GPT-2's and RoBERTa's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=280, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet,
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(["the film was not good"] * 3, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>"
    )


def sentence_pieces():
    """A tokenizer of pieces with a mark for each space, as T5's and XLM-RoBERTa's."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=40, special_tokens=["<unk>", "</s>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(["the film was not good"] * 3, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>"
    )


TOKENIZERS = {
    "words": tiny_tokenizer,
    "words alone": lambda: tiny_tokenizer(special=False),
    "bytes": byte_level,
    "pieces": sentence_pieces,
}
TEXTS = [
    "  the   film ", "😀 👨\u200d👩\u200d👧 naïve cafe\u0301", "שלום the עולם", "مرحبا بالعالم",
    "зззз ффф", "ﬁne ㎏", "the [SEP] film </s>", "a\x00b", "\n\tthe\r\nfilm\n", "x" * 60, "。",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", TOKENIZERS)
def test_text_tokens_of_every_kind_keep_the_text_and_its_sum(name):
    tokenizer = TOKENIZERS[name]()
    network = tiny("Llama", vocab_size=300)
    classifier = TextClassifier(network, tokenizer)
    layer = network.get_input_embeddings()
    for text in TEXTS:
        explanation = explain_text(classifier, text, "input_x_gradient")
        read = tokenizer(text, return_tensors="pt")
        embeddings = layer(read["input_ids"]).detach().requires_grad_()
        probabilities = network(inputs_embeds=embeddings).logits.softmax(-1)
        score = probabilities[0, int(explanation.attribution.target)]
        (gradient,) = torch.autograd.grad(score, embeddings)
        by_token = (gradient * embeddings).sum(-1)[0].detach()
        added = torch.tensor(
            tokenizer(text, return_special_tokens_mask=True)["special_tokens_mask"]
        ).bool()
        expected = by_token[~added]
        assert explanation.token_values.tolist() == pytest.approx(expected.tolist(), abs=1e-9)
        for by in ("word", "token"):
            pieces = explanation.pieces(by)
            assert "".join(piece for piece, _ in pieces) == text
            total = sum(value for _, value in pieces if value is not None)
            assert total == pytest.approx(float(expected.sum()), abs=1e-9)


def test_text_tokenizer_that_truncates_and_pads_by_itself():
    own = tiny_tokenizer().backend_tokenizer
    own.enable_truncation(4)
    own.enable_padding(length=20)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=own, unk_token="[UNK]", pad_token="[PAD]"
    )
    encoded = TextClassifier(tiny_bert(), tokenizer).encode(TEXT)
    assert encoded.tokens.words == ("the", "film", "was", "not", "good")


@pytest.mark.parametrize(
    ("text", "names", "offsets", "words"),
    [
        ("The soup!", ["the", "so@@", "up", "!"], [(0, 3), (4, 6), (6, 8), (8, 9)], (0, 1, 1, 1)),
        ("  un Café", ["▁u", "n", "▁cafe"], [(2, 3), (3, 4), (5, 9)], (0, 0, 1)),
        ("a ﬁne", ["a</w>", "fi", "##ne"], [(0, 1), (2, 3), (3, 5)], (0, 1, 1)),
        ("a xyz b", ["a", "[UNK]", "b"], [(0, 1), (2, 5), (6, 7)], (0, 1, 2)),
        ("a b", ["a", " ", "b"], [(0, 1), (1, 2), (2, 3)], (0, 0, 1)),
    ],
)
def test_text_tokens_are_found_by_their_names(text, names, offsets, words):
    assert align(text, names, "[UNK]") == offsets
    assert words_between_spaces(text, offsets) == words


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("see @ada", ["see", "@user"]),
        ("bad, soup", ["[UNK]", "[UNK]", "[UNK]"]),
        ("bad soup", ["bad"]),
        ("bad", ["bad", "soup"]),
    ],
)
def test_text_tokens_that_a_slow_tokenizer_has_rewritten(text, names):
    with pytest.raises(UnilensError, match=r"got a slow one that rewrites it: .* is not found at"):
        align(text, names, "[UNK]")


@pytest.mark.slow
def test_text_of_a_slow_tokenizer(tmp_path):
    (tmp_path / "words").write_text("the 5\nfilm 4\nwas 3\nba@@ 2\nd 1\n")
    merges = [
        "t h 5",
        "th e</w> 5",
        "f i 4",
        "fi l 4",
        "fil m</w> 4",
        "w a 3",
        "wa s</w> 3",
        "b a 2",
    ]
    (tmp_path / "merges").write_text("\n".join(merges) + "\n")
    tokenizer = transformers.PhobertTokenizer(str(tmp_path / "words"), str(tmp_path / "merges"))
    network = tiny_bert()
    explanation = explain_text(TextClassifier(network, tokenizer), "the film was bad", "gradient")
    assert explanation.tokens.names == ("the", "film", "was", "ba@@", "d")
    assert explanation.tokens.words == ("the", "film", "was", "bad")
    assert "".join(piece for piece, _ in explanation.pieces()) == "the film was bad"
    expected = logits(network, "the film was bad", tokenizer).tolist()
    assert explanation.attribution.outputs[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_text_of_a_word_that_the_tokenizer_cannot_name():
    own = Tokenizer(models.WordLevel({"film": 0, "[UNK]": 1}, unk_token="?"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=own)
    classifier = TextClassifier(tiny_bert(), tokenizer)
    with pytest.raises(UnilensError, match=r"a tokenizer that reads the text, .*: WordLevel error"):
        classifier.encode("plot")


@pytest.mark.slow
def test_text_classifier_serves_several_threads():
    classifier = TextClassifier(tiny("T5"), tiny_tokenizer())
    texts = [TEXT, "dull and bad"]
    expected = [explain_text(classifier, text, "gradient").token_values for text in texts]
    values, failures = {}, []

    def explain(number):
        try:
            for _ in range(2):
                values[number] = explain_text(classifier, texts[number], "gradient").token_values
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=explain, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert all(torch.equal(values[number], value) for number, value in enumerate(expected))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Roberta", "XLNet", "T5"])
def test_text_network_from_a_folder(name, tmp_path):
    network = tiny(name).float()
    network.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    classifier = load_text_classifier(f"hf:{tmp_path}")
    outputs = explain_text(classifier, TEXT, "gradient").attribution.outputs[0]
    assert outputs.tolist() == pytest.approx(logits(network, TEXT).tolist(), rel=1e-4)


def test_text_of_gpt2_is_that_of_its_ids():
    network, tokenizer = tiny_gpt2(), tiny_tokenizer(special=False)
    explanation = explain_text(
        TextClassifier(network, tokenizer), TEXT, "ig", baseline="zero", n_steps=4
    )
    expect_ig(network, tokenizer, explanation, added=0)
