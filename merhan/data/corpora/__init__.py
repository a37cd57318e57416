"""Readers of raw corpus releases and of the user's own data, one module `<name>_corpus` each."""

CORPORA = (
    "demo",
    "emodb",
    "ravdess",
    "meld",
    "iemocap",
    "msp_podcast",
    "msp_improv",
    "mosei",
    "cremad",
    "esd",
    "emovdb",
    "mead",
    "tess",
    "savee",
    "nemo",
    "folder",
    "manifest",
    "table",
    "datasets",
)
