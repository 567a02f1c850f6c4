"""Find near-duplicates in an index: equal files, and pictures that show the same view.

    index --there--> contents, those to be kept first --near--> pairs with near vectors --looks--> the same view
                                                                                      --groups--> one kept, and others

`there` holds the rule by which one of several is kept. Nothing is ever deleted.
"""
