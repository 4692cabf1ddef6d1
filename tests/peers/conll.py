"""Tagged sentences for scripts that train with PyTorch: read from CoNLL files, encoded with the tag of a word on its first sub-token."""


def read(path):
    """Sentences as (words, tags) of a file with a word and its tag a line, separated by a tab, and blank lines between sentences."""
    sentences, words, tags = [], [], []
    with open(path, encoding="utf-8") as file:
        for line in [*file, "\n"]:
            if not line.strip():
                if words:
                    sentences.append((words, tags))
                words, tags = [], []
                continue
            word, tag = line.rstrip("\n").split("\t")
            words.append(word)
            tags.append(tag)
    return sentences


def encode(words, tags, tokenizer, ids, max_length):
    """Sub-token ids, their labels (-100 where no word begins) and the word of each."""
    encoding = tokenizer(words, is_split_into_words=True, truncation=True, max_length=max_length)
    owners = encoding.word_ids()
    labels = [-100 if owner is None or owner == owners[at - 1] else ids[tags[owner]] for at, owner in enumerate(owners)]
    return encoding["input_ids"], labels, owners
