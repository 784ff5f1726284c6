"""The benchmark: one case for each pretrained model."""


def test_model(embed_model, embed_images, embed_measure, embed_replay):
    """Score and time one frozen backbone on the labelled images.

    ``embed_measure`` embeds the images in a separate process, scores the nearest neighbours and times the forward pass.
    ``embed_replay`` passes the measured durations to pytest-benchmark, and everything else as ``extra_info``. It skips
    or fails the case if the model could not be measured.
    """
    result = embed_measure(embed_model, embed_images)
    embed_replay(result)
