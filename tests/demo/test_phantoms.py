# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib

import numpy as np
import pytest
from processes import run_code

from monai_crossd.demo import acquisition, anatomy, make_phantom
from monai_crossd.demo.phantoms import CLASSES, MODALITIES

SMALL = (48, 48, 16)


def digest(phantom) -> str:
    return hashlib.sha256(phantom.image.tobytes() + phantom.label.tobytes() + repr(phantom[2:]).encode()).hexdigest()


def test_a_subject_is_the_same_in_another_process():
    code = (
        "import hashlib; from monai_crossd.demo import make_phantom\n"
        f"for modality in {MODALITIES!r}:\n"
        "    p = make_phantom(modality, 5, (32, 32, 8), seed=3)\n"
        "    print(hashlib.sha256(p.image.tobytes() + p.label.tobytes() + repr(p[2:]).encode()).hexdigest())"
    )
    for modality, expected in zip(MODALITIES, run_code(code).split(), strict=True):
        make_phantom(modality, 4, (32, 32, 8), seed=3)  # what was made before does not matter
        assert digest(make_phantom(modality, 5, (32, 32, 8), seed=3)) == expected


@pytest.mark.parametrize("modality", MODALITIES)
def test_subjects_and_seeds_differ(modality):
    made = [digest(make_phantom(modality, s, (32, 32), seed=seed)) for seed in (0, 1) for s in range(6)]
    assert len(set(made)) == 12
    assert [make_phantom(modality, s, (32, 32)).class_number for s in range(6)] == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize(
    "size", [(64, 64, 32), (33, 47, 9), (48, 48, 1), (40, 56), (16, 16, 40)], ids=lambda s: "x".join(map(str, s))
)
def test_any_size_shows_the_whole_anatomy(modality, size):
    phantom = make_phantom(modality, 1, size)
    assert phantom.image.shape == phantom.label.shape == size
    assert len(phantom.spacing) == len(size)
    assert phantom.image.dtype == {"us": np.uint8}.get(modality, np.int16)
    found = {phantom.names[v] for v in np.unique(phantom.label)}
    assert found >= {"fat", "liver", "vessel", "lesion"}
    assert phantom.image.std() > 0


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("number", range(4))
def test_the_class_is_whether_and_how_there_is_a_lesion(modality, number):
    for subject in (number, number + 4):
        phantom = make_phantom(modality, subject, num_classes=4)
        assert (phantom.class_number, CLASSES[number]) == (number, CLASSES[phantom.class_number])
        lesion = phantom.label == phantom.names.index("lesion")
        if number == 0:
            assert not lesion.any()
            continue
        # the farthest voxel, in radii of a ball of the same volume
        places = np.argwhere(lesion) * phantom.spacing
        ball = (lesion.sum() * np.prod(phantom.spacing) * 3 / (4 * np.pi)) ** (1 / 3)
        farthest = np.linalg.norm(places - places.mean(0), axis=1).max() / ball
        assert (farthest > 1.3) == (number == 3)


@pytest.mark.parametrize("modality", ["ct", "mr"])
def test_only_a_shell_has_a_core_like_the_liver(modality):
    for subject, hollow in ((1, False), (2, True), (4, False), (5, True)):
        phantom = make_phantom(modality, subject)
        grey = {n: np.median(phantom.image[phantom.label == i]) for i, n in enumerate(phantom.names)}
        center = np.argwhere(phantom.label == phantom.names.index("lesion")).mean(0).round().astype(int)
        core = np.median(phantom.image[tuple(slice(c - 1, c + 2) for c in center)])
        nearer_to_liver = abs(core - grey["liver"]) < abs(core - grey["vessel"])
        assert nearer_to_liver == hollow


@pytest.mark.parametrize("modality", MODALITIES)
def test_intensity_alone_does_not_tell_the_class(modality):
    """Nearest class mean on mean, deviation and percentiles of the grey values, leaving one subject out."""
    subjects = 120
    rows, classes = [], []
    for subject in range(subjects):
        phantom = make_phantom(modality, subject, (32, 32))
        values = phantom.image.astype(float)
        rows.append([values.mean(), values.std(), *np.percentile(values, [50, 90, 95])])
        classes.append(phantom.class_number)
    features = np.array(rows)
    features = (features - features.mean(0)) / features.std(0)
    right = 0
    for subject in range(subjects):
        rest = np.arange(subjects) != subject
        means = [features[rest & (np.array(classes) == c)].mean(0) for c in range(3)]
        right += np.linalg.norm(features[subject] - means, axis=1).argmin() == classes[subject]
    assert right / subjects < 0.33 + 3 * np.sqrt(0.22 / subjects)


@pytest.mark.parametrize("size", [(32, 32), (32, 32, 16)], ids=["2d", "3d"])
@pytest.mark.parametrize("modality", ["ct", "us"])
def test_the_amount_of_vessel_tissue_does_not_tell_the_class(modality, size):
    amounts: dict[int, list] = {0: [], 1: []}
    for subject in range(120):
        phantom = make_phantom(modality, subject, size, num_classes=2)
        focus = [phantom.names.index(n) for n in ("vessel", "lesion")]
        amounts[phantom.class_number].append(np.isin(phantom.label, focus).mean())
    assert abs(np.mean(amounts[0]) - np.mean(amounts[1])) < 0.8 * np.std(amounts[0] + amounts[1])


def test_ct_numbers_are_those_of_the_tissues():
    for subject in range(3):
        phantom = make_phantom("ct", subject, (96, 96, 24))
        expected = {"background": -1000, "soft tissue": 50, "right lung": -850, "left lung": -850, "spine": 400}
        for name, hounsfield in expected.items():
            inside = phantom.image[phantom.label == phantom.names.index(name)]
            assert abs(np.median(inside) - hounsfield) < 12, name
        liver, vessel = (
            np.median(phantom.image[phantom.label == phantom.names.index(name)]) for name in ("liver", "vessel")
        )
        assert 50 < liver < 80
        assert 50 < vessel - liver < 110
        background = phantom.image[:4, :4].astype(float)  # noise, and nothing below what a scanner stores
        assert 3 < background.std() < 20
        assert phantom.image.min() >= -1024


def test_ct_noise_is_grainy():
    noise = acquisition._grain((64, 64, 8), np.random.default_rng(0))
    power = np.abs(np.fft.fft2(noise, axes=(0, 1))).mean(2) ** 2
    assert noise.std() == pytest.approx(1, abs=1e-3)
    assert power[:2, :2].mean() < 0.2 * power.mean()
    assert power[28:36, 28:36].mean() < 0.5 * power.mean()
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.05


def test_a_thick_slice_is_the_mean_of_what_it_cuts():
    for subject in range(3):
        thin = make_phantom("ct", subject, (48, 48, 30), (7.0, 7.0, 6.0)).image.reshape(48, 48, 6, 5).astype(float)
        thick = make_phantom("ct", subject, (48, 48, 6), (7.0, 7.0, 30.0)).image
        to_mean, to_middle = (np.abs(thick - other).mean() for other in (thin.mean(-1), thin[..., 2]))
        assert to_mean < 16  # noise of the one and the mean of five of the others
        assert to_mean < 0.7 * to_middle


@pytest.mark.parametrize(("sequence", "bright"), [("mr", True), ("mr_t1", False)])
def test_mr_signal_is_that_of_the_sequence(sequence, bright):
    phantom = make_phantom(sequence, 4, (96, 96, 24))
    measured = {n: np.median(phantom.image[phantom.label == i]) for i, n in enumerate(phantom.names)}
    limits = acquisition.SEQUENCES[sequence]
    tissues = {"fat": "fat", "soft tissue": "muscle", "left lung": "lung", "liver": "liver", "vessel": "focus"}
    expected = [acquisition.spin_echo(t, np.mean(limits[0]), np.mean(limits[1])) for t in tissues.values()]
    assert np.corrcoef(expected, [measured[n] for n in tissues])[0, 1] > 0.95
    assert (measured["vessel"] > measured["liver"]) == bright


def test_mr_background_is_rayleigh_and_scale_is_arbitrary():
    scales = []
    for subject in range(6):
        phantom = make_phantom("mr", subject, (64, 64, 16))
        air = phantom.image[:6, :6].astype(float)
        assert air.mean() / air.std() == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), rel=0.08)
        scales.append(np.median(phantom.image[phantom.label == 1]))
    assert max(scales) / min(scales) > 2


def test_bias_field_is_smooth_and_bounded():
    for seed in range(5):
        field = np.log(acquisition._bias_field((32, 24, 8), np.random.default_rng(seed)))
        assert np.abs(field).max() == pytest.approx(acquisition.BIAS)
        assert max(np.abs(np.diff(field, axis=a)).max() * field.shape[a] for a in range(3)) < 6 * acquisition.BIAS


def test_ct_and_mr_of_a_subject_have_the_same_anatomy():
    first, second, third = (make_phantom(m, 7, SMALL) for m in ("ct", "mr", "mr_t1"))
    np.testing.assert_array_equal(first.label, second.label)
    np.testing.assert_array_equal(first.label, third.label)


def test_right_is_right():
    phantom = make_phantom("ct", 1, SMALL)  # x to the left
    x, y, z = ({n: np.argwhere(phantom.label == i)[:, a].mean() for i, n in enumerate(phantom.names)} for a in range(3))
    assert x["right lung"] < x["spine"] < x["left lung"]
    assert x["liver"] < x["spine"]
    assert y["spine"] > y["liver"]
    assert z["right lung"] > z["liver"]


def test_speckle_is_fully_developed():
    """Rayleigh: mean / standard deviation 1.91, and the mean square is that of the scatterers."""
    envelope = np.abs(acquisition.speckle(np.full((128, 128, 16), 3.0), (1.5, 1.0, 0.8), np.random.default_rng(0)))
    inner = envelope[6:-6, 6:-6, 4:-4]
    assert inner.mean() / inner.std() == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), rel=0.03)
    assert np.mean(inner**2) == pytest.approx(9, rel=0.05)


def test_speckle_is_wider_across_the_beam():
    envelope = np.abs(acquisition.speckle(np.ones((256, 256, 1)), (3.0, 1.0, 0.5), np.random.default_rng(0)))[..., 0]
    centerd = envelope - envelope.mean()

    def correlation(axis):
        return np.mean(np.take(centerd, range(250), axis) * np.take(centerd, range(3, 253), axis)) / centerd.var()

    assert correlation(0) > 0.4 > 0.1 > correlation(1)


def test_speckle_in_an_image_before_log_compression():
    """In squares of liver alone, so that neither attenuation nor a border adds to the spread."""
    ratios = []
    for subject in range(4):
        phantom = make_phantom("us", subject, (256, 256))
        envelope = 10 ** (phantom.image / 255.0 * acquisition.DYNAMIC_RANGE / 20)
        liver = phantom.label == phantom.names.index("liver")
        for i, j in np.ndindex(8, 8):
            square = slice(32 * i, 32 * i + 32), slice(32 * j, 32 * j + 32)
            if liver[square].all():
                ratios.append(envelope[square].mean() / envelope[square].std())
    assert len(ratios) > 20
    assert np.median(ratios) == pytest.approx(1.91, abs=0.2)


def test_bone_hides_what_is_behind_it():
    fans, brighter = 0, []
    for subject in range(8):
        phantom = make_phantom("us", subject, (96, 96))
        part = {name: phantom.image[phantom.label == number] for number, name in enumerate(phantom.names)}
        assert part["shadow"].mean() < 0.4 * part["liver"].mean()
        assert not part["background"].any()
        fans += bool(part["background"].size)
        # the surface is bright; the rest of the rib lies in its own shadow
        brighter.append(np.percentile(part["bone"], 90) - part["liver"].mean())
    assert 0 < fans < 8
    assert np.mean(brighter) > 25


def test_vessels_are_dark_and_brighten_what_is_behind_them():
    """A tube of blood attenuates less than the liver: the echoes from behind it are stronger."""
    loss = {t: a * 2 * acquisition.FREQUENCY for t, (_, a) in acquisition.ECHO.items()}  # dB per cm there and back
    points = (np.zeros((64, 1, 1)), np.zeros((1, 64, 1)), np.zeros((1, 1, 8)))
    band = anatomy.Layer(6, "focus", lambda p: np.abs(p[1] + 20) - 10)  # y from -30 to -10 mm
    everywhere = anatomy.Layer(3, "liver", lambda p: np.full(np.broadcast_shapes(*(q.shape for q in p)), -np.inf))
    levels = []
    for layers in ([everywhere], [everywhere, band]):
        image, _ = acquisition.acquire_us(
            anatomy.Anatomy(layers, lambda p: p), points, (1.875, 1.875, 4.0), 8, np.random.default_rng(2)
        )
        levels.append(image[20:44, 45:60].mean() / 255 * acquisition.DYNAMIC_RANGE)
    assert levels[1] - levels[0] == pytest.approx(2 * (loss["liver"] - loss["focus"]), abs=0.6)


def test_scan_conversion_returns_to_the_place_in_the_body():
    """The samples' own x and y, brought into the image, are the pixels' x and y."""
    for fan in (True, False):
        made = acquisition.make_beams((60.0, 50.0), (64, 48), fan)
        x, y = (made.to_image(v[..., None])[..., 0] for v in (made.x, made.y))
        pixel_x = ((np.arange(64) + 0.5) / 64 * 120 - 60)[:, None]
        pixel_y = ((np.arange(48) + 0.5) / 48 * 100 - 50)[None, :]
        near = made.inside & (made.row > 0) & (made.row < 94) & (made.column > 0) & (made.column < 62)
        assert near.mean() > 0.5
        assert np.abs(x - pixel_x)[near].max() < 0.1
        assert np.abs(y - pixel_y)[near].max() < 0.1


def test_blur_against_a_literal_sum():
    values = np.random.default_rng(0).standard_normal((7, 5))
    kernel = np.exp(-0.5 * (np.arange(-2, 3) / 0.6) ** 2)
    expected = np.zeros_like(values)
    for i, j in np.ndindex(7, 5):
        expected[i, j] = sum(kernel[k + 2] * values[min(max(i + k, 0), 6), j] for k in range(-2, 3)) / kernel.sum()
    np.testing.assert_allclose(anatomy.blur(values, (0.6, 0)), expected, atol=1e-12)


def test_a_painted_ball_has_its_volume():
    axis = (np.arange(40) - 19.5).astype(np.float32)
    points = (axis[:, None, None], axis[None, :, None], axis[None, None, :])
    ball = anatomy.Layer(1, "one", lambda p: anatomy.ellipsoid(p, (0.3, -0.2, 0.1), (12, 12, 12)))
    scene = anatomy.Anatomy([anatomy.Layer(0, "zero", ball.distance), ball], lambda p: p)
    label, (part,) = anatomy.paint(scene, points, 1.0, {"zero": 0.0, "one": 1.0})
    assert part.sum() == pytest.approx(4 / 3 * np.pi * 12**3, rel=2e-3)
    assert label.sum() == pytest.approx(part.sum(), rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"modality": "pet"}, "ct"),
        ({"size": (64,)}, r"size is \(64,\)"),
        ({"size": (8, 64)}, "at least 16"),
        ({"size": (64, 64, 0)}, "size is"),
        ({"subject": -1}, "subject is -1"),
        ({"seed": -1}, "seed -1"),
        ({"num_classes": 1}, "expected 2 to 4"),
        ({"num_classes": 5}, "expected 2 to 4"),
        ({"spacing": (1.0, 1.0)}, "expected 3 positive numbers"),
        ({"spacing": (1.0, 1.0, 0.0)}, "expected 3 positive numbers"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_phantom(**{"modality": "ct", "subject": 0, **arguments})
