"""`generate`: what is generated and read, what is refused, and what is left as it was."""

import copy

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from tests.text_models import tiny_bert, tiny_gpt2, tiny_language_model, tiny_tokenizer
from unilens.errors import UnilensError, UnknownNameError
from unilens.text import LanguageModel, generate, load_language_model
from unilens.text.generation.reading import spell_tokens

BOS, EOS = 2, 3


def tokenizer_with(single="[CLS] $A", **more):
    """The tiny tokenizer, which puts a token before the text, or what a template says."""
    made = tiny_tokenizer(bos_token="[CLS]", eos_token="[SEP]", **more)
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[("[CLS]", BOS), ("[SEP]", EOS)]
    )
    return made


@pytest.fixture(scope="module")
def gpt2():
    return tiny_language_model("GPT2")


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizer_with()


def steered(network, answers):
    """A network that writes certain tokens, by the number of those that it has read."""
    network = copy.deepcopy(network)
    counts = []

    def count(module, inputs, kwargs):
        counts.append(int(kwargs["input_ids"].shape[1]) if "input_ids" in kwargs else 1)
        if counts[-1] > 1:  # a pass of the whole prompt begins the text
            counts[:] = counts[-1:]

    def answer(module, inputs, output):
        forced = torch.zeros_like(output)
        forced[:, -1, answers[min(len(counts), len(answers)) - 1]] = 9.0
        return forced

    network.register_forward_pre_hook(count, with_kwargs=True)
    network.get_output_embeddings().register_forward_hook(answer)
    return network


def test_greedy_decoding_is_that_of_the_network(gpt2, tokenizer):
    ids = tokenizer("the film was", return_tensors="pt")["input_ids"]
    expected = gpt2.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=5, pad_token_id=0
    )[0, ids.shape[1] :].tolist()
    found = generate(gpt2, tokenizer, "the film was", max_new_tokens=5, method="occlusion")
    assert tokenizer.convert_tokens_to_ids(found.continuation.names) == expected
    assert found.prompt.names == ("[CLS]", "the", "film", "was")
    assert found.prompt.offsets == ((0, 0), (0, 3), (4, 8), (9, 12))
    assert found.prompt.word_of == (0, 1, 2, 3)
    logits = gpt2(input_ids=ids).logits[0, -1]
    torch.testing.assert_close(found.probability[0], logits.softmax(-1)[expected[0]].detach())
    torch.testing.assert_close(found.score.double().exp(), found.probability)


def test_rows_before_and_targets_chosen(gpt2, tokenizer):
    found = generate(gpt2, tokenizer, "the film", max_new_tokens=4, targets=[2, 0])
    assert found.explained.tolist() == [True, False, True, False]
    assert (~found.values[2].isnan()).tolist() == [True] * 5 + [False] * 2
    whole = generate(gpt2, tokenizer, "the film", max_new_tokens=4)
    torch.testing.assert_close(found.values[2], whole.values[2], equal_nan=True)


@pytest.mark.parametrize(
    ("method", "settings"),
    [("uni", {"matching_steps": 1, "n_steps": 2}), ("ig", {"baseline": "image_mean"})],
)
def test_methods_that_share_nothing_are_looped(gpt2, tokenizer, method, settings):
    found = generate(gpt2, tokenizer, "the film was", method, max_new_tokens=2, **settings)
    assert found.provenance["engine"]["shared"] is False
    gap = found.completeness_gap
    assert float(gap.abs().max()) < 0.02 * float((found.score - found.baseline_score).abs().min())


def test_uni_unlearns_the_log_probability_of_each_token(gpt2, tokenizer):
    settings = {"matching_steps": 1, "n_steps": 2}
    found = generate(gpt2, tokenizer, "the film was", "uni", max_new_tokens=3, **settings)
    assert bool((found.baseline_score < found.score).all())


def test_a_network_that_looks_ahead_is_explained_token_by_token(gpt2, tokenizer):
    class LooksAhead(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, hidden):
            return self.inner(hidden + hidden.flip(1))

    network = copy.deepcopy(gpt2)
    network.transformer.ln_f = LooksAhead(network.transformer.ln_f).eval()
    found = generate(network, tokenizer, "the film", "input_x_gradient", continuation=" was bad")
    assert found.provenance["engine"]["shared"] is False
    plain = generate(gpt2, tokenizer, "the film", "input_x_gradient", continuation=" was bad")
    assert plain.provenance["engine"]["shared"] is True


def test_batches_that_differ_are_dropped(gpt2, tokenizer, monkeypatch):
    grad = torch.autograd.grad

    def wrong(*args, is_grads_batched=False, **kwargs):
        (found,) = grad(*args, is_grads_batched=is_grads_batched, **kwargs)
        return (found * 1.001 if is_grads_batched else found,)

    expected = generate(gpt2, tokenizer, "the film", "input_x_gradient", max_new_tokens=3)
    monkeypatch.setattr(torch.autograd, "grad", wrong)
    found = generate(gpt2, tokenizer, "the film", "input_x_gradient", max_new_tokens=3)
    assert expected.provenance["engine"]["ways"] == ["head", "batch"]
    assert found.provenance["engine"]["ways"] == ["head", "loop"]
    torch.testing.assert_close(found.values, expected.values, equal_nan=True)


def test_chunks_give_the_same_values(gpt2, tokenizer, monkeypatch):
    settings = {"baseline": "zero", "n_steps": 5, "max_new_tokens": 5}
    expected = generate(gpt2, tokenizer, "the film", "ig", **settings)
    monkeypatch.setattr("unilens.text.generation.shared._BYTES", {"cpu": 1, "other": 1})
    found = generate(gpt2, tokenizer, "the film", "ig", **settings)
    assert found.provenance["engine"]["passes"]["forward"] == 25  # a chunk for each target
    torch.testing.assert_close(found.values, expected.values, equal_nan=True)


def test_caches_that_differ_are_dropped(gpt2, tokenizer, monkeypatch):
    prompt = "the film was not very good , a dull plot and fun the film was"
    expected = generate(gpt2, tokenizer, prompt, "occlusion", max_new_tokens=6)
    monkeypatch.setattr(
        "unilens.text.generation.next_token.NextToken.cache", lambda *_: {"use_cache": False}
    )
    found = generate(gpt2, tokenizer, prompt, "occlusion", max_new_tokens=6)
    assert expected.provenance["engine"]["cached"] is True
    assert found.provenance["engine"]["cached"] is False
    torch.testing.assert_close(found.values, expected.values, equal_nan=True)


def without_embeddings(network):
    """A network that takes ids alone."""
    network = copy.deepcopy(network)
    forward = type(network).forward

    class IdsAlone(type(network)):
        def forward(self, input_ids=None, use_cache=None, cache=None, attention_mask=None):
            return forward(
                self, input_ids, use_cache=use_cache, cache=cache, attention_mask=attention_mask
            )

    network.__class__ = IdsAlone
    return network


@pytest.mark.parametrize("method", ["input_x_gradient", "occlusion"])
def test_a_network_that_takes_ids_alone(gpt2, tokenizer, method):
    prompt = "the film was not very good , a dull plot and fun the film was"
    call = {"prompt": prompt, "method": method, "continuation": " a plot and fun"}
    expected = generate(gpt2, tokenizer, **call)
    found = generate(without_embeddings(gpt2), tokenizer, **call)
    torch.testing.assert_close(found.values, expected.values, equal_nan=True)
    assert found.provenance["engine"].get("cached", False) is False


@pytest.mark.parametrize("method", ["ig", "occlusion"])
def test_rows_of_a_batch_that_depend_on_each_other_run_alone(gpt2, tokenizer, method):
    class Mixes(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, hidden):
            return self.inner(hidden + 0.1 * hidden.mean(0, keepdim=True))

    network = copy.deepcopy(gpt2)
    network.transformer.ln_f = Mixes(network.transformer.ln_f).eval()
    settings = {"n_steps": 6} if method == "ig" else {}
    call = {"prompt": "the film", "continuation": " was bad", "method": method, **settings}
    found = generate(network, tokenizer, **call)
    looped = generate(network, tokenizer, shared=False, **call)
    assert found.provenance["engine"]["shared"]
    torch.testing.assert_close(found.values, looped.values, equal_nan=True)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["GPT2", "T5"])
def test_the_model_is_left_as_it_was(architecture):
    network, tokenizer = tiny_language_model(architecture), tokenizer_with()
    config, generation = copy.deepcopy(network.config), network.generation_config.to_dict()
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    flags = [value.requires_grad for value in network.parameters()]
    for method in ("ig", "occlusion", "uni"):
        settings = {} if method == "occlusion" else {"n_steps": 2}
        generate(network, tokenizer, "the film", method, max_new_tokens=2, **settings)
    assert network.config.to_dict() == config.to_dict()
    assert network.generation_config.to_dict() == generation
    assert [value.requires_grad for value in network.parameters()] == flags
    assert all(value.grad is None for value in network.parameters())
    assert not network.training
    assert not network.get_output_embeddings()._forward_pre_hooks
    for name, value in network.state_dict().items():
        assert torch.equal(value, weights[name])


class Doubled(torch.autograd.Function):
    """A function of a model's own, for which balanced gradients have no rule."""

    @staticmethod
    def forward(ctx, hidden):
        return 2 * hidden

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


def test_the_default_is_what_applies_to_the_model(gpt2, tokenizer):
    assert generate(gpt2, tokenizer, "the", max_new_tokens=1).provenance["method"] == "balanced"

    class Doubles(torch.nn.Module):
        def forward(self, hidden):
            return Doubled.apply(hidden)

    network = copy.deepcopy(gpt2)
    network.transformer.drop = Doubles().eval()
    found = generate(network, tokenizer, "the film", max_new_tokens=1)
    assert found.provenance["method"] == "occlusion"
    assert "the default" in found.provenance["default"]
    expected = generate(network, tokenizer, "the film", "occlusion", max_new_tokens=1)
    torch.testing.assert_close(found.values, expected.values, equal_nan=True)
    torch.testing.assert_close(found.score, expected.score)
    with pytest.raises(UnilensError, match="have a rule for"):
        generate(network, tokenizer, "the film", "balanced", max_new_tokens=1)


@pytest.mark.slow
@pytest.mark.parametrize("balanced", ["constant", "full"])
def test_balanced_gradients_are_shared_and_add_up_to_the_logit(balanced):
    network, tokenizer = tiny_language_model("Llama"), tokenizer_with()
    call = {"prompt": "the film", "max_new_tokens": 3, "attention": balanced}
    found = generate(network, tokenizer, method="balanced", **call)
    looped = generate(network, tokenizer, method="balanced", shared=False, **call)
    assert found.provenance["engine"]["shared"]
    torch.testing.assert_close(found.values, looped.values, equal_nan=True)
    torch.testing.assert_close(found.baseline_score, looped.baseline_score)
    if balanced == "constant":  # without biases, and the norms compute in float32
        assert float(found.completeness_gap.abs().max()) < 1e-6


def test_contrast_by_word_by_token_and_by_id(gpt2, tokenizer):
    number = tokenizer.convert_tokens_to_ids("bad")
    call = {"continuation": " was fun", "method": "input_x_gradient"}
    word, same, several = (
        generate(gpt2, tokenizer, "the film", against=against, **call)
        for against in ("bad", number, [None, "bad"])
    )
    assert word.against == same.against == ("bad", "bad")
    assert several.against == (None, "bad")
    torch.testing.assert_close(word.values, same.values, equal_nan=True)
    torch.testing.assert_close(word.values[1], several.values[1], equal_nan=True)
    torch.testing.assert_close(several.score[0].exp(), several.probability[0])


def test_a_contrast_of_several_tokens_is_that_of_the_first(gpt2, tokenizer):
    found = generate(gpt2, tokenizer, "the", continuation=" film", against="unfun")
    assert found.against == ("un",)
    assert "several tokens" in found.notes[0]


def test_a_note_says_that_decoding_is_not_compared(gpt2, tokenizer, monkeypatch):
    def fail(*args, **settings):
        raise RuntimeError("no decoding here")

    monkeypatch.setattr(type(gpt2), "generate", fail)
    found = generate(gpt2, tokenizer, "the film", continuation=" was", method="gradient")
    assert "its own decoding is not compared with the scores" in found.notes[0]


def test_against_is_paired_in_the_order_of_the_targets(gpt2, tokenizer):
    call = {"prompt": "the film", "continuation": " was fun bad", "method": "input_x_gradient"}
    found = generate(gpt2, tokenizer, targets=[2, 0], against=["good", "dull"], **call)
    assert found.against == ("dull", None, "good")


def test_a_token_is_not_contrasted_with_itself(gpt2, tokenizer):
    found = generate(gpt2, tokenizer, "the", continuation=" film was", against="was")
    assert found.against == ("was", None)
    assert "not contrasted" in found.notes[0]


MARIAN = {
    "vocab_size": 26,
    "d_model": 16,
    **{f"{part}_layers": 1 for part in ("encoder", "decoder")},
    **{f"{part}_attention_heads": 2 for part in ("encoder", "decoder")},
    **{f"{part}_ffn_dim": 16 for part in ("encoder", "decoder")},
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "eos_token_id": EOS,
    "decoder_start_token_id": 0,
    "forced_eos_token_id": None,
}


def network_of(name, head, **settings):
    """A tiny network of transformers, with random weights, in float64."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**settings)
    network = getattr(transformers, head)(config).eval().double()
    for weight in network.parameters():
        weight.data += 0.2 * torch.randn_like(weight)
    return network


def test_a_decoder_with_its_own_table_has_its_own_padding(tokenizer):
    own = {"share_encoder_decoder_embeddings": False, "tie_word_embeddings": False}
    network = network_of("Marian", "MarianMTModel", decoder_vocab_size=26, **own, **MARIAN)
    call = {"prompt": "the film", "continuation": " was bad", "baseline": "pad"}
    found = generate(network, tokenizer, method="occlusion", **call)
    encoder, decoder = network.get_encoder(), network.get_decoder()
    ids = [tokenizer(text)["input_ids"] for text in ("the film", "was bad")]
    prompt = encoder.embed_tokens(torch.tensor([ids[0]]))
    written = decoder.embed_tokens(torch.tensor([[0, ids[1][1]]]))
    padded = decoder.embed_tokens(torch.tensor([[0, 0]]))
    scores = [
        network(inputs_embeds=prompt, decoder_inputs_embeds=given).logits[0, -1].log_softmax(-1)
        for given in (written, padded)
    ]
    expected = (scores[0] - scores[1])[ids[1][2]]
    torch.testing.assert_close(found.values[1, -2], expected.detach())
    looped = generate(network, tokenizer, method="occlusion", shared=False, **call)
    torch.testing.assert_close(found.values, looped.values, equal_nan=True)
    small = network_of("Marian", "MarianMTModel", decoder_vocab_size=5, **own, **MARIAN)
    with pytest.raises(UnilensError, match="the model's 5 tokens, got token"):
        generate(small, tokenizer, method="occlusion", **call)


@pytest.mark.parametrize("shared", [True, False])
def test_embeddings_that_a_network_scales(tokenizer, shared):
    network = network_of("Marian", "MarianMTModel", scale_embedding=True, **MARIAN)
    call = {"continuation": " was", "method": "occlusion", "baseline": "zero", "shared": shared}
    found = generate(network, tokenizer, "the film", **call)
    whole = network.get_input_embeddings()(torch.tensor([[BOS, 5, 6]])) * 4
    assert tokenizer("the film")["input_ids"] == [BOS, 5, 6]
    emptied = whole.clone()
    emptied[:, 1] = 0
    start = network.get_decoder().embed_tokens(torch.tensor([[0]]))  # it scales these itself
    scores = [
        network(inputs_embeds=given, decoder_inputs_embeds=start).logits[0, -1].log_softmax(-1)
        for given in (whole, emptied)
    ]
    number = tokenizer.convert_tokens_to_ids("was")
    torch.testing.assert_close(found.values[0, 1], (scores[0] - scores[1])[number].detach())


def test_a_network_that_decodes_by_other_logits_is_refused(tokenizer):
    settings = {"d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 16, "vocab_size": 26}
    special = {"pad_token_id": 0, "bos_token_id": BOS, "eos_token_id": None}
    network = network_of("XLNet", "XLNetLMHeadModel", **settings, **special).float()
    for continuation in (None, " was bad"):
        with pytest.raises(UnilensError, match="decoding has others from token 0"):
            generate(network, tokenizer, "the film", continuation=continuation)


def test_decoding_that_gives_no_numbers_is_refused(gpt2, tokenizer):
    class Decodes(type(gpt2)):
        def forward(self, *args, **kwargs):
            output = super().forward(*args, **kwargs)
            if kwargs.get("use_cache", True):
                output.logits = output.logits * torch.nan
            return output

    network = copy.deepcopy(gpt2)
    network.__class__ = Decodes
    with pytest.raises(UnilensError, match="decoding has others from token 0"):
        generate(network, tokenizer, "the film", max_new_tokens=2)


@pytest.mark.parametrize(
    "setting",
    [
        {"repetition_penalty": 5.0},
        {"no_repeat_ngram_size": 1},
        {"suppress_tokens": list(range(4, 20))},
        {"num_beams": 3, "num_return_sequences": 2},
        {"forced_eos_token_id": EOS},
        {"max_time": 1e-9},
    ],
)
def test_decoding_is_greedy_whatever_the_configuration(gpt2, tokenizer, setting):
    network = copy.deepcopy(gpt2)
    network.generation_config.update(**setting)
    kept = network.generation_config.to_dict()
    call = {"method": "occlusion", "max_new_tokens": 5}
    found = generate(network, tokenizer, "the film was", **call)
    plain = generate(gpt2, tokenizer, "the film was", **call)
    assert found.continuation.names == plain.continuation.names
    assert network.generation_config.to_dict() == kept


def test_a_text_is_given_where_the_model_would_end_it(tokenizer):
    network = steered(tiny_language_model("GPT2", eos_token_id=EOS), [EOS])
    found = generate(network, tokenizer, "the film", "occlusion", continuation=" was")
    assert found.explained.all()


def test_a_first_token_that_is_set_has_a_note():
    network = tiny_language_model("Bart", forced_bos_token_id=None)
    network.generation_config.forced_bos_token_id = 7
    found = generate(network, tokenizer_with(), "the film", "occlusion", max_new_tokens=2)
    assert "token 0 is set by the model's configuration" in " ".join(found.notes)


def test_a_failure_of_sharing_is_explained_token_by_token(gpt2, tokenizer, monkeypatch):
    def fail(*_):
        raise RuntimeError("no such kernel")

    expected = generate(gpt2, tokenizer, "the film", "occlusion", continuation=" was bad")
    monkeypatch.setattr("unilens.text.generation.occlusion.SharedOcclusion.__call__", fail)
    found = generate(gpt2, tokenizer, "the film", "occlusion", continuation=" was bad")
    assert found.provenance["engine"] == {"shared": False, "not shared": "no such kernel"}
    torch.testing.assert_close(found.values, expected.values, equal_nan=True)


def test_experts_are_given_one_block_of_memory(tokenizer):
    experts = {"num_local_experts": 2, "num_key_value_heads": 2}
    network = tiny_language_model("Llama").config.to_dict()
    sizes = {name: network[name] for name in ("hidden_size", "intermediate_size", "vocab_size")}
    layers = {"num_hidden_layers": 1, "num_attention_heads": 2, "pad_token_id": 0}
    network = network_of("Mixtral", "MixtralForCausalLM", **sizes, **layers, **experts).float()
    found = generate(network, tokenizer, "the film", "input_x_gradient", continuation=" was bad")
    assert found.provenance["engine"]["shared"]


def test_a_network_that_cannot_generate_says_why(gpt2, tokenizer):
    class Fails(type(gpt2)):
        def generate(self, *args, **kwargs):
            raise RuntimeError("no cache\nof this kind")

    network = copy.deepcopy(gpt2)
    network.__class__ = Fails
    with pytest.raises(UnilensError, match="Fails: no cache; pass a text by continuation="):
        generate(network, tokenizer, "the film")
    assert generate(network, tokenizer, "the film", continuation=" was").explained.all()


def test_half_precision_is_summed_in_single(gpt2, tokenizer):
    network = copy.deepcopy(gpt2).float()
    call = {"prompt": "the film was", "continuation": " bad and dull", "method": "ig"}
    call |= {"baseline": "zero", "n_steps": 20}
    exact = generate(network, tokenizer, **call).values.nan_to_num()
    network = network.to(torch.bfloat16)
    errors = [
        float(
            (generate(network, tokenizer, shared=shared, **call).values.nan_to_num() - exact).norm()
        )
        for shared in (True, False)
    ]
    assert errors[0] < 1.1 * errors[1]


@pytest.mark.slow
def test_a_continuation_of_a_decoder_has_no_added_tokens():
    tokenizer = tokenizer_with("[CLS] $A [SEP]")
    found = generate(tiny_language_model("T5"), tokenizer, "the film", continuation=" was bad")
    assert found.continuation.names == ("was", "bad")
    found = generate(tiny_language_model("T5"), tokenizer, "the film", continuation=" bad [SEP]")
    assert found.continuation.names == ("bad", "[SEP]")
    network = tiny_language_model("Bart")
    network.generation_config.forced_bos_token_id = BOS
    found = generate(network, tokenizer, "the film", continuation=" was bad")
    assert found.continuation.names == ("[CLS]", "was", "bad")


def test_the_end_of_a_text_is_no_token_of_it(tokenizer):
    network = steered(tiny_language_model("GPT2", eos_token_id=EOS), [9, 10, EOS])
    model = LanguageModel(network, tokenizer)
    ids = torch.tensor([BOS, 5])
    tokens, logits = model.greedy(model.copy(), ids, 6)
    assert tokens.tolist() == logits.argmax(-1).tolist() == [9, 10]


def test_a_model_that_ends_at_once(tokenizer):
    network = steered(tiny_language_model("GPT2", eos_token_id=EOS), [EOS])
    with pytest.raises(UnilensError, match="it ends the text at once"):
        generate(network, tokenizer, "the film")


def test_an_empty_prompt_is_the_token_that_begins_a_text(gpt2):
    found = generate(gpt2, tokenizer_with(), "", max_new_tokens=2)
    assert found.prompt.names == ("[CLS]",)
    assert found.prompt.text == ""
    bare = generate(gpt2, tokenizer_with("$A"), "", max_new_tokens=2)
    assert bare.prompt.names == ("[CLS]",)
    assert "the prompt is empty" in bare.notes[0]
    torch.testing.assert_close(found.values, bare.values, equal_nan=True)
    with pytest.raises(UnilensError, match="got an empty one"):
        generate(gpt2, tiny_tokenizer(special=False), "")


def test_a_prompt_that_begins_twice_has_a_note(gpt2, tokenizer):
    twice = generate(gpt2, tokenizer, "[CLS] the film", max_new_tokens=1)
    assert twice.prompt.names[:2] == ("[CLS]", "[CLS]")
    assert "begins with [CLS] twice" in twice.notes[0]
    assert not generate(gpt2, tokenizer, "the film", max_new_tokens=1).notes


def test_a_prompt_that_the_tokenizer_ends_has_a_note(gpt2):
    found = generate(gpt2, tokenizer_with("[CLS] $A [SEP]"), "the film", max_new_tokens=1)
    assert "ends the prompt with [SEP]" in found.notes[0]


def test_a_continuation_is_read_with_its_prompt(gpt2, tokenizer):
    found = generate(gpt2, tokenizer, "the un", continuation="fun film")
    assert found.continuation.names == ("##fun", "film")
    assert not found.notes
    found = generate(gpt2, tokenizer, "the go", continuation="od film")  # together it is good
    assert found.continuation.names == ("[UNK]", "film")
    assert "read alone" in found.notes[0]
    found = generate(gpt2, tokenizer, "the film", continuation=" was un")
    assert found.continuation.names == ("was", "un")
    assert not found.notes


def byte_tokenizer():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({name: number for number, name in enumerate(alphabet)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner)


def test_tokens_within_a_character_cover_it():
    tokenizer = byte_tokenizer()
    network = tiny_language_model("GPT2", vocab_size=256)
    found = generate(network, tokenizer, "a", continuation=" 🙂!", method="occlusion")
    assert found.continuation.text == " 🙂!"
    assert found.continuation.offsets == ((0, 1), (1, 2), (1, 2), (1, 2), (1, 2), (2, 3))
    assert found.by("word").rows.labels == ("␣", "🙂!")
    with pytest.raises(UnilensError, match="a part of a letter"):
        generate(network, tokenizer, "a", continuation="b", against="🙂")
    cut = tokenizer(" 🙂")["input_ids"][:3]  # a text that ends within a character
    tokens = spell_tokens(LanguageModel(network, tokenizer), (), cut)
    assert len(tokens.offsets) == 3
    assert all(end <= len(tokens.text) for _, end in tokens.offsets)


REFUSED = {
    "a whole number of at least 1": {"max_new_tokens": 0},
    "at most 32 tokens, got 34": {"prompt": "the film was " * 11},
    "generate at most 5 tokens": {"prompt": "the film was " * 9, "max_new_tokens": 9},
    "at most 32 tokens, got 42": {"continuation": " good" * 40},
    "a word that the tokenizer knows, got 'xylophone'": {"against": "xylophone"},
    "a token from 0 to 25, got 99": {"against": 99},
    "another token than the target": {"against": "was", "continuation": " was"},
    "one token for each of 2 targets, got 1": {"against": ["bad"]},
    "one for each target, got float": {"against": 2.5},
    "score log_probability or logit beside against": {"against": "bad", "score": "probability"},
    "from 0 to 1, each once, got [2]": {"targets": [2]},
    "each once, got [1, 1]": {"targets": [1, 1]},
    "a whole number of at least 0, got 2.0": {"targets": 2.0},
    "expected shared true or false, got 'no'": {"shared": "no"},
    "a text, one at a time, got int": {"continuation": 5},
    "targets to be a whole number of at least 0": {"targets": [-1]},
    "got one of what the model returns": {"score": lambda outputs: outputs},
    "expected create_graph=False": {"method": "ig", "create_graph": True},
    "expected a text, one at a time, got list": {"prompt": ["the film"]},
    "expected a text with words, got ''": {"continuation": ""},
}


@pytest.mark.parametrize("message", REFUSED)
def test_refusals(gpt2, tokenizer, message):
    arguments = {"prompt": "the film", "max_new_tokens": 2, **REFUSED[message]}
    with pytest.raises(UnilensError) as caught:
        generate(gpt2, tokenizer, **arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_models_that_are_refused(gpt2, tokenizer):
    with pytest.raises(UnilensError, match="for a classifier use unilens"):
        generate(tiny_gpt2(), tokenizer, "the film")
    with pytest.raises(UnilensError, match="got BertForSequenceClassification"):
        generate(tiny_bert(), tokenizer, "the film")
    with pytest.raises(UnilensError, match="in training mode"):
        generate(tiny_language_model("GPT2").train(), tokenizer, "the film")
    with pytest.raises(UnilensError, match="without a tokenizer"):
        generate(gpt2, None, "the film")
    with pytest.raises(UnilensError, match="expected no tokenizer beside a LanguageModel"):
        generate(LanguageModel(gpt2, tokenizer), "the film")
    with pytest.raises(UnilensError, match="the model's 8 tokens, got token"):
        generate(tiny_language_model("GPT2", vocab_size=8), tokenizer, "the good")
    with pytest.raises(UnknownNameError, match="unknown method 'gradcam'"):
        generate(gpt2, tokenizer, "the film", "gradcam")


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["GPT2", "T5"])
def test_loading_by_name(tmp_path, architecture):
    network, tokenizer = tiny_language_model(architecture), tokenizer_with()
    network.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = load_language_model(f"hf:{tmp_path}")
    assert model.has_encoder == (architecture == "T5")
    expected = generate(network.float(), tokenizer, "the film", continuation=" was")
    found = generate(model, prompt="the film", continuation=" was")
    torch.testing.assert_close(found.values.float(), expected.values.float(), equal_nan=True)
    assert found.provenance["model"] == f"hf:{tmp_path}"


def test_loading_a_classifier_as_a_language_model(tmp_path):
    tiny_bert().save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(UnilensError, match="language model"):
        load_language_model(f"hf:{tmp_path}")
