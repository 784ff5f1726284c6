"""The benchmark: one case for each pretrained model."""


def test_model(embed_model, embed_images, embed_measure, embed_replay):
    """Score and time one frozen backbone on the labelled images.

    ``embed_measure`` embeds the images with the model in a process of its own, finds and scores the neighbours and
    times the forward pass. ``embed_replay`` hands the durations to pytest-benchmark, with everything else as
    ``extra_info``; it skips or fails the case whose model could not be measured.
    """
    result = embed_measure(embed_model, embed_images)
    embed_replay(result)
