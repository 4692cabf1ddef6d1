"""Writes crates/nlp/testdata/pipelines.json: texts, outputs of tiny random models, and what the pipelines of transformers 4.57.6
make of them.

python3 -m venv VENV && VENV/bin/pip install torch==2.11.0 transformers==4.57.6
VENV/bin/python tests/peers/pipeline_golden.py
"""

import copy
import json
import pathlib
import tempfile
import warnings

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertTokenizerFast,
    PreTrainedTokenizerFast,
    RobertaTokenizerFast,
    pipeline,
)

TARGET = pathlib.Path(__file__).parents[2] / "crates/nlp/testdata/pipelines.json"
LABELS = ["O", "B-PER", "I-PER", "B-LOC-X", "I-LOC-X", "MISC"]
TEXTS = [
    "Anna Schmidt lives in Newport, near Zürich.",
    "newport newporter  unnewported",
    "Prices rose 3.5% (to $12.50) at Smith&Sons' shop!",
    "naïve café ﬁsh 東京 is far",
    "a\tb\n c",
    " ",
    "don't stop-and-go; e-mail me@example.org",
    "🙂 smile 👩‍👩‍👧 family ẞ",
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen Newport "
    "seventeen Anna Schmidt eighteen nineteen twenty",
]
WORDS = [["Anna", "Schmidt's", "house"], ["in", "Newport,", "Zürich"], ["東京", "x"]]
CORPUS = [text for text in TEXTS for _ in range(3)] + [" ".join(words) for words in WORDS]


def wordpiece(lower):
    letters = [chr(c) for c in range(33, 127)] + list("üïéﬁß")
    words = ["new", "newport", "##port", "##er", "un", "##new", "anna", "Anna", "Schmidt", "lives", "in", "near", "##zürich"]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + letters + ["##" + c for c in letters if c.isalnum()]
    vocabulary += [word for word in words if word not in vocabulary]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "vocab.txt"
        path.write_text("\n".join(vocabulary) + "\n")
        return BertTokenizerFast(vocab_file=str(path), do_lower_case=lower)


def byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    parts = json.loads(tokenizer.to_str())["model"]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "vocab.json").write_text(json.dumps(parts["vocab"]))
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in parts["merges"]]
        (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
        return RobertaTokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt"), add_prefix_space=True)


def unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=["[CLS]", "[PAD]", "[SEP]", "[UNK]"], unk_token="[UNK]"
    )
    tokenizer.train_from_iterator([text for text in CORPUS if "東" not in text], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 0), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, cls_token="[CLS]", pad_token="[PAD]", sep_token="[SEP]", unk_token="[UNK]"
    )


def model(kind, tokenizer, labels, seed, **settings):
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        id2label=dict(enumerate(labels)), label2id={label: number for number, label in enumerate(labels)}, **settings,
    )
    built = kind(config).eval()
    built.classifier.weight.data *= 40
    # Coarse outputs: short in the file, and equal now and then.
    built.classifier.register_forward_hook(lambda _module, _input, output: torch.round(output * 4) / 4)
    return built


def plain(value):
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value.item() if hasattr(value, "item") else value


def recorded(pipe):
    """Keeps what the model gave for the last input."""
    inner, kept = pipe.postprocess, {}

    def postprocess(outputs, **settings):
        # Copied: the pipeline shifts the offsets of words in place.
        kept["outputs"] = copy.deepcopy(outputs)
        return inner(outputs, **settings)

    pipe.postprocess = postprocess
    return kept


def rows(outputs):
    found = []
    for output in outputs:
        offsets = output["offset_mapping"][0].tolist()
        if output.get("word_to_chars_map") is not None:
            words, places = output["word_ids"], output["word_to_chars_map"]
            offsets = [
                pair if word is None else [place + places[word][0] for place in pair]
                for pair, word in zip(offsets, words)
            ]
        used = output["attention_mask"][0].bool()
        found.append({
            "ids": output["input_ids"][0][used].tolist(),
            "special": [bool(flag) for flag in output["special_tokens_mask"][0][used]],
            "offsets": [pair for pair, flag in zip(offsets, used) if flag],
            "logits": output["logits"][0][used].ravel().tolist(),
        })
    return found


def token_cases(name, tokenizer, seed):
    tokenizer_json = json.loads(tokenizer.backend_tokenizer.to_str())
    pipe = pipeline("token-classification", model=model(BertForTokenClassification, tokenizer, LABELS, seed), tokenizer=tokenizer)
    kept = recorded(pipe)
    cases = []
    settings = [(text, {}, 512, {}) for text in TEXTS]
    settings += [(words, {"is_split_into_words": True, "delimiter": " "}, 512, {}) for words in WORDS]
    settings += [(TEXTS[-1], {"stride": stride}, length, {"stride": stride, "max_length": length})
                 for stride, length in ((0, 8), (3, 9), (5, 16), (2, 64))]
    settings += [(TEXTS[0], {"ignore_labels": ["PER", "B-PER"]}, 512, {"ignore_labels": ["PER", "B-PER"]})]
    settings += [(TEXTS[0], {}, 8, {"max_length": 8})]
    for source, arguments, length, said in settings:
        pipe.tokenizer.model_max_length = length
        case = {"strategies": {}, **said}
        case["words" if isinstance(source, list) else "text"] = source
        for strategy in ("none", "simple", "first", "average", "max"):
            if strategy == "none" and "stride" in arguments:
                continue
            case["strategies"][strategy] = plain(pipe(source, aggregation_strategy=strategy, **arguments))
        # A batch of words comes as a list of results.
        if isinstance(source, list):
            case["strategies"] = {key: value[0] if value and isinstance(value[0], list) else value
                                  for key, value in case["strategies"].items()}
        case["rows"] = rows(kept["outputs"])
        cases.append(case)
    return {"name": name, "tokenizer": tokenizer_json, "labels": LABELS, "cases": cases}


def text_cases():
    tokenizer = wordpiece(True)
    cases = []
    for seed, (count, problem) in enumerate([(4, "single_label_classification"), (2, None), (3, "multi_label_classification"),
                                             (1, "regression"), (1, None)]):
        labels = [f"L{number}" for number in range(count)]
        settings = {"problem_type": problem} if problem else {}
        pipe = pipeline("text-classification", model=model(BertForSequenceClassification, tokenizer, labels, seed, **settings),
                        tokenizer=tokenizer)
        kept = recorded(pipe)
        for text in TEXTS[:3]:
            for function in (None, "softmax", "sigmoid", "none"):
                for top_k in (1, 2, None):
                    arguments = {} if function is None else {"function_to_apply": function}
                    found = pipe(text, top_k=top_k, **arguments)
                    cases.append({
                        "labels": labels, "problem_type": problem, "function": function or "default", "top_k": top_k or 0,
                        "logits": kept["outputs"]["logits"][0].tolist(), "result": plain(found),
                    })
    return cases


def main():
    warnings.simplefilter("ignore")
    content = {
        "transformers": transformers.__version__,
        "tokens": [
            token_cases("wordpiece", wordpiece(True), 1),
            token_cases("wordpiece, cased", wordpiece(False), 2),
            token_cases("byte-level", byte_level(), 3),
            token_cases("unigram", unigram(), 4),
        ],
        "texts": text_cases(),
    }
    TARGET.write_text(json.dumps(content, separators=(",", ":"), ensure_ascii=False) + "\n")
    print(f"{TARGET}: {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
