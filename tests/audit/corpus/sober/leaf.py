NAME = "leaf"


def kind():
    return NAME
