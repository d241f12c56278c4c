"""A data position that a checkpoint can hold."""

import random


class Shuffle:
    """Endless indices below `length`, in a new order each epoch. The order depends on seed and epoch alone.

        order = bitctl.Shuffle(len(dataset), seed=0)
        run.restore(model=model, optimizer=optimizer, data=order)
        batch = [dataset[next(order)] for _ in range(8)]
    """

    def __init__(self, length, seed=0):
        if length < 1:
            raise ValueError("nothing to shuffle: length is %r" % (length,))
        self.length, self.seed = length, seed
        self.epoch, self.position = 0, 0
        self._order = None

    def __iter__(self):
        return self

    def __next__(self):
        if self.position == self.length:
            self.epoch, self.position, self._order = self.epoch + 1, 0, None
        if self._order is None:
            self._order = list(range(self.length))
            random.Random("%s/%s" % (self.seed, self.epoch)).shuffle(self._order)
        index = self._order[self.position]
        self.position += 1
        return index

    def state_dict(self):
        return {"length": self.length, "seed": self.seed, "epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state):
        if state["length"] != self.length:
            raise ValueError("the data has %d items, the checkpoint was taken with %d" % (self.length, state["length"]))
        self.seed, self.epoch, self.position = state["seed"], state["epoch"], state["position"]
        self._order = None
