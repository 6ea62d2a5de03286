# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator, SupervisedTrainer

from monai_crossd.training import prepare_plain_batch

IMAGE = torch.arange(16.0).view(1, 1, 4, 4)


@pytest.mark.parametrize(
    "label", [None, torch.tensor([1]), MetaTensor(torch.ones(1, 1, 4, 4))], ids=["none", "class", "map"]
)
@pytest.mark.parametrize("form", ["dict", "pair", "tensor"])
def test_values_stay_and_types_are_plain(form, label):
    image = MetaTensor(IMAGE, affine=torch.eye(4) * 2)
    if form == "dict":
        batch = {"image": image, **({} if label is None else {"label": label})}
    elif form == "pair":
        batch = (image, image if label is None else label)
    else:
        batch = image
    found, target = prepare_plain_batch(batch, "cpu")
    assert type(found) is torch.Tensor
    assert torch.equal(found, IMAGE)
    expected = None if form == "tensor" or (form == "dict" and label is None) else batch[1] if form == "pair" else label
    assert type(target) is (type(None) if expected is None else torch.Tensor)
    assert target is None or torch.equal(target, torch.as_tensor(expected))
    assert image.affine[0, 0] == 2


@pytest.mark.parametrize("kind", [SupervisedTrainer, SupervisedEvaluator])
def test_an_engine_gives_the_network_plain_tensors_and_keeps_the_meta(kind):
    seen = []

    class Net(torch.nn.Conv2d):
        def forward(self, x):
            seen.append(type(x))
            return super().forward(x)

    net = Net(1, 1, 1)
    data = [{"image": MetaTensor(IMAGE, meta={"filename_or_obj": "a.png"}), "label": MetaTensor(IMAGE)}]
    options = {"device": torch.device("cpu"), "network": net, "prepare_batch": prepare_plain_batch, "decollate": False}
    if kind is SupervisedTrainer:
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        engine = kind(
            max_epochs=1, train_data_loader=data, optimizer=optimizer, loss_function=torch.nn.MSELoss(), **options
        )
    else:
        engine = kind(val_data_loader=data, **options)
    engine.run()
    assert seen == [torch.Tensor]
    assert engine.state.batch["image"].meta["filename_or_obj"] == "a.png"
    assert all(type(value) is torch.Tensor for value in engine.state.output.values())
