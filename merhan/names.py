"""Names that recipes, manifests and results share: emotion labels, affective dimensions, modalities and scores."""

# Ekman's six basic emotions, neutral, and the further categories that the supported corpora annotate.
EMOTIONS = (
    "neutral",
    "calm",
    "joy",
    "excitement",
    "amusement",
    "anger",
    "frustration",
    "sadness",
    "fear",
    "disgust",
    "contempt",
    "surprise",
    "boredom",
    "sleepiness",
)

# Labels of sentiment corpora, which have no emotion label. They also use "neutral".
SENTIMENTS = ("negative", "positive")

# Every label that a manifest may contain without `data.label_map`.
VOCABULARY = EMOTIONS + SENTIMENTS

# Weighted and unweighted average recall, macro and weighted F1: key in metrics.json -> heading of a table.
SCORE_TITLES = {"war": "WAR", "uar": "UAR", "macro_f1": "macro F1", "weighted_f1": "weighted F1"}

SCORES = ("war", "uar", "macro_f1", "weighted_f1")

DIMENSIONS = ("valence", "arousal", "dominance")

MODALITIES = ("audio", "text")
