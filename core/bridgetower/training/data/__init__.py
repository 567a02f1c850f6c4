"""The data of training: captions files -> checked pictures and their texts -> batches.

    prepare   read the captions files; look at each picture once (`look`); share out train, validation and replay
    batches   the order of pairs (`order`) -> decode ahead (`decoding`), `augment`, tokenise -> Batch

Everything that is drawn is a function of the seed and the place in the run, so that a continued run gets the same data.
"""
