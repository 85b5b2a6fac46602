"""Nine kinds of place, painted: grass, sand, water, snow, sky, stone, wood, foliage and fabric.

Each painter makes a new instance from a random generator: other light, other camera height, other colours,
other materials. No third-party picture is involved, so the places are the same wherever the photographs came
from. A painter returns (size, size, 3) float32 around [0, 1], RGB.
"""

from collections.abc import Callable

import cv2
import numpy as np

from ckfr_helpers.datasets.scenes.noise import cells, fractal, ground, light, mix, slopes, soften

TILE = 384  # side of the textures that are laid on the ground

Painter = Callable[[np.random.Generator, int], np.ndarray]
PAINTERS: dict[str, Painter] = {}


def painter(function: Painter) -> Painter:
    """Register a painter under its own name."""
    PAINTERS[function.__name__] = function
    return function


def rgb(*values: float) -> np.ndarray:
    """A colour from 0..255 values, as float32 in [0, 1]."""
    return np.array(values, np.float32) / 255


def tint(rng: np.random.Generator, colour: np.ndarray, spread: float = 0.04) -> np.ndarray:
    """The colour, a little brighter or darker and a little off."""
    return (colour * rng.normal(1, 2 * spread) + rng.normal(0, spread / 2, 3)).clip(0, 1).astype(np.float32)


def choose(rng: np.random.Generator, *colours: tuple[float, float, float]) -> np.ndarray:
    """One of several colours, slightly changed."""
    return tint(rng, rgb(*colours[rng.integers(len(colours))]))


def camera(rng: np.random.Generator, see_horizon: float = 0.4) -> float:
    """Height of the horizon in the picture; negative when the camera looks down."""
    return float(rng.uniform(0.1, 0.34) if rng.random() < see_horizon else rng.uniform(-1.2, -0.15))


def sky_behind(rng: np.random.Generator, size: int) -> np.ndarray:
    """A plain bright sky for the strip above a horizon. (size, size, 3)"""
    top, low = choose(rng, (120, 165, 215), (165, 190, 215), (190, 200, 208)), choose(rng, (215, 226, 235))
    height = np.linspace(0, 3, size, dtype=np.float32)[:, None] + 0.08 * fractal(rng, size, 2.6, (3, 1))
    return mix(top, low, height)


def skyline(rng: np.random.Generator, picture: np.ndarray, horizon: float, colour: np.ndarray) -> np.ndarray:
    """Cover the horizon with distant trees or hills, out of focus."""
    size = picture.shape[0]
    rough = fractal(rng, size, rng.uniform(1.7, 4.0))[0]
    ridge = (horizon - rng.uniform(0.0, 0.11) - 0.018 * np.abs(rough))[None, :]
    y = ((np.arange(size) + 0.5) / size)[:, None]
    inside = soften(((y > ridge) & (y < horizon)).astype(np.float32), size / 256)
    leaves = mix(colour * 0.7, colour * 1.1, 0.5 + 0.3 * fractal(rng, size, 1.4))
    return mix(picture, leaves, inside)


def outdoors(
    rng: np.random.Generator, land: np.ndarray, depth: np.ndarray, horizon: float, behind: np.ndarray
) -> np.ndarray:
    """Put sky and a skyline above the land and let distance fade it."""
    size = land.shape[0]
    if horizon <= 0:
        return land
    haze = (1 - np.exp(-(depth - 1) * rng.uniform(0.01, 0.03)))[:, None] * np.ones(size, np.float32)
    sky = sky_behind(rng, size)
    land = mix(land, sky[int(horizon * size)].mean(0), haze * 0.7)
    y = (np.arange(size) + 0.5) / size
    picture = mix(sky, land, soften((y[:, None] > horizon) * np.ones(size, np.float32), size / 400))
    return skyline(rng, picture, horizon, behind)


@painter
def grass(rng: np.random.Generator, size: int) -> np.ndarray:
    """Lawn or meadow: thousands of blades, drawn from far to near."""
    horizon = camera(rng)
    root, tip = (
        choose(rng, (52, 68, 30), (66, 76, 36)),
        choose(rng, (136, 158, 76), (158, 168, 92), (112, 146, 66)),
    )
    patches = fractal(rng, TILE, 1.5)
    land, depth = ground(
        mix(root, tip, 0.45 + 0.2 * patches + 0.13 * fractal(rng, TILE, 0.6)), size, horizon, 1.5
    )
    canvas = (np.clip(land, 0, 1) * 255).astype(np.uint8)
    meadow = rng.uniform(0.4, 1.0)
    count = int(2600 * (1.2 - 0.5 * meadow))
    y = np.sort(max(horizon, 0) + (1.12 - max(horizon, 0)) * rng.random(count) ** 0.8)
    x = rng.random(count) * 1.1 - 0.05
    near = (y - horizon) / (1 - horizon)  # 1 at the bottom edge, 0 at the horizon
    length = 0.115 * meadow * near * rng.uniform(0.5, 1.3, count)
    lean = (rng.normal(0, 0.12) + rng.normal(0, 0.38, count)) * (1 + (horizon < -0.4))
    bright = 0.35 + 0.3 * patches[(y * 300 % TILE).astype(int), (x * 360 % TILE).astype(int)] * 0.5
    bright = (bright + rng.normal(0.12, 0.24, count)).clip(-0.1, 1.15)
    dry = rng.random(count) < rng.uniform(0, 0.12)
    colours = root + (tip - root) * bright[:, None]
    colours[dry] = rgb(178, 160, 98) * (0.7 + 0.4 * bright[dry, None])
    bend = np.array([0, 0.45, 0.8, 1.0])
    points = np.empty((count, 4, 2))
    points[..., 0] = x[:, None] + (lean * length)[:, None] * bend**1.8
    points[..., 1] = y[:, None] - length[:, None] * bend / np.sqrt(1 + lean[:, None] ** 2)
    points = (points * size * 16).astype(np.int32)
    thick = 1 + (near * meadow * rng.random(count) > 0.62)
    for line, colour, width in zip(points, (colours.clip(0, 1) * 255).tolist(), thick.tolist(), strict=True):
        cv2.polylines(canvas, [line], False, colour, width, cv2.LINE_AA, 4)
    picture = canvas.astype(np.float32) / 255 * (1 + 0.07 * fractal(rng, size, 2.5))[..., None]
    return outdoors(rng, picture, depth, horizon, choose(rng, (62, 82, 50), (80, 92, 70)))


@painter
def sand(rng: np.random.Generator, size: int) -> np.ndarray:
    """Beach or dune: wind ripples under a low sun, and grains."""
    horizon = camera(rng, 0.3)
    base = choose(rng, (214, 188, 146), (226, 206, 170), (200, 170, 128), (190, 168, 140))
    n = TILE
    across = np.arange(n, dtype=np.float32) / n
    turns = rng.integers(6, 20)
    skew = rng.integers(-2, 3)
    wander = 0.55 * fractal(rng, n, 2.6, coarsest=1.0) + 0.12 * fractal(rng, n, 1.6, coarsest=6)
    phase = 2 * np.pi * (turns * across[:, None] + skew * across[None, :]) + 2.2 * wander
    # Ripples have a long windward and a short lee side.
    ripples = np.sin(phase + 0.45 * np.sin(phase)) * (0.6 + 0.4 * np.tanh(fractal(rng, n, 2.5)))
    slope = slopes(ripples, rng.choice([0.0, 0.1, 0.2, 0.3])) + slopes(
        fractal(rng, n, 4.4), rng.uniform(0.05, 0.16)
    )
    slope += slopes(fractal(rng, n, 2.6, coarsest=4), 0.1) + slopes(fractal(rng, n, 0.5), 0.06)
    shade = light(slope, rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 0.9))
    grains = 0.055 * fractal(rng, n, 0.15)
    texture = (
        base * (0.28 + 0.72 * shade + grains)[..., None] + rgb(10, 6, 2) * fractal(rng, n, 2.0)[..., None]
    )
    land, depth = ground(texture.astype(np.float32), size, horizon, rng.uniform(0.7, 1.3))
    return outdoors(rng, land, depth, horizon, choose(rng, (150, 165, 170), (175, 155, 125), (110, 120, 100)))


@painter
def water(rng: np.random.Generator, size: int) -> np.ndarray:
    """Lake or sea: waves that mirror the sky where they tilt away and show the deep where they do not."""
    horizon = camera(rng, 0.45)
    n = TILE
    long = rng.uniform(1.5, 3.2)
    waves = slopes(
        fractal(rng, n, rng.uniform(4.2, 5.2), (1, long), rng.uniform(4, 9)), rng.uniform(0.16, 0.42)
    )
    waves += slopes(fractal(rng, n, 3.2, (1, 1.5), 14), rng.uniform(0.06, 0.2))
    slope, depth = ground(waves, size, horizon, rng.uniform(0.7, 1.4))
    slope *= 2 / (1 + depth[:, None, None] ** 0.5)  # far waves hide each other's slopes
    y = (np.arange(size, dtype=np.float32)[:, None] + 0.5) / size
    # The steeper we look down, the less the surface mirrors (Schlick's form of Fresnel's law).
    grazing = np.clip(0.62 * (1 - (y - horizon) / (1 - horizon)) + 0.26 - 1.1 * slope[..., 1], 0, 1)
    mirror = 0.05 + 0.95 * grazing**1.7
    zenith, rim = choose(rng, (105, 150, 200), (150, 175, 200), (120, 140, 160)), choose(rng, (222, 230, 235))
    sky = mix(zenith, rim, 0.25 + grazing * 0.9 + 0.25 * slope[..., 0])
    deep = choose(rng, (18, 62, 82), (28, 70, 66), (14, 48, 88), (40, 80, 82), (30, 110, 122))
    body = deep * (1 + 0.5 * np.clip(slope[..., 1:], -1, 1) + 0.10 * fractal(rng, size, 2.5)[..., None])
    picture = mix(body, sky, mirror)
    sun = np.clip(slope @ np.array([np.cos(t := rng.uniform(0, np.pi)), np.sin(t)], np.float32), 0, None)
    glint = np.clip(sun / (sun.max() + 1e-6) * 1.5 - rng.uniform(0.75, 1.05), 0, 1) ** 1.5
    picture = mix(picture, rgb(252, 252, 246), soften(glint, 0.5) * rng.uniform(0.3, 0.95))
    return outdoors(rng, picture, depth, horizon, choose(rng, (90, 110, 120), (70, 88, 72), (140, 155, 165)))


@painter
def snow(rng: np.random.Generator, size: int) -> np.ndarray:
    """Snowfield: soft drifts, blue in the shade, with crust and sometimes tracks."""
    horizon = camera(rng, 0.5)
    n = TILE
    slope = slopes(
        fractal(rng, n, rng.uniform(4.2, 5.4), (rng.uniform(1.0, 2.2), 1)), rng.uniform(0.10, 0.26)
    )
    slope += slopes(fractal(rng, n, 2.8, (1.5, 1), 6), rng.uniform(0.03, 0.10)) + slopes(
        fractal(rng, n, 0.5), 0.035
    )
    if rng.random() < 0.25:  # a line of footprints
        start, heading = rng.random(2), rng.uniform(-0.6, 0.6)
        for step in range(14):
            side = 0.012 * (-1) ** step
            at = start + step * 0.055 * np.array([np.sin(heading), np.cos(heading)]) + side
            centre = tuple(int(v) for v in at % 1 * n)
            print_ = cv2.ellipse(
                np.zeros((n, n), np.float32), centre, (6, 11), np.degrees(-heading), 0, 360, 1.0, -1
            )
            slope -= slopes(soften(print_, 2), 0.03)
    shade = light(slope, rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 0.75))
    lit, dark = choose(rng, (246, 248, 252), (250, 248, 246)), choose(rng, (150, 170, 205), (164, 176, 200))
    texture = mix(dark, lit, 0.15 + 0.66 * shade + 0.04 * fractal(rng, n, 0.4))
    texture += (rng.random((n, n, 1)) > 0.9985) * 0.3  # glitter
    land, depth = ground(texture.astype(np.float32), size, horizon, rng.uniform(0.6, 1.1))
    return outdoors(rng, land, depth, horizon, choose(rng, (72, 84, 86), (96, 108, 118), (52, 64, 60)))


@painter
def sky(rng: np.random.Generator, size: int) -> np.ndarray:
    """Clear, scattered or overcast sky, from noon to evening."""
    evening = rng.random() < 0.25
    top = (
        choose(rng, (70, 92, 140), (96, 110, 150)) if evening else choose(rng, (52, 112, 190), (84, 140, 208))
    )
    low = (
        choose(rng, (240, 186, 140), (232, 200, 178))
        if evening
        else choose(rng, (184, 212, 236), (206, 222, 234))
    )
    y = np.linspace(0, 1, size, dtype=np.float32)[:, None] * np.ones(size, np.float32)
    picture = mix(top, low, y ** rng.uniform(0.8, 1.6))
    n = TILE
    field = fractal(rng, n, rng.uniform(3.3, 4.0), (rng.uniform(1, 2.4), 1), 1.5)
    wisps = field + rng.uniform(0.06, 0.22) * fractal(rng, n, 2.2, coarsest=8)
    cover = rng.uniform(-0.9, 1.1)
    density = np.clip((wisps + cover) / rng.uniform(0.9, 2.2), 0, 1)
    density = density * density * (3 - 2 * density)  # soft at both ends
    thick = np.clip((field + cover - 0.5) / 2.2, 0, 1)
    # Clouds are bright at their sunlit rim and grey underneath, where they are thick.
    side = light(slopes(soften(wisps, 3), 0.35), -np.pi / 2 + rng.normal(0, 0.6), 0.8)
    tone = 1.02 - 0.34 * thick + 0.3 * (side - 1)
    clouds, _ = ground(np.stack([density, tone], -1).astype(np.float32), size, -rng.uniform(0.5, 3), 0.8)
    clouds = clouds[::-1]  # the layer is above us
    white = rgb(255, 226, 204) if evening else rgb(250, 250, 250)
    return mix(picture, np.clip(clouds[..., 1:], 0, 1.1) * white, 0.96 * clouds[..., 0])


@painter
def stone(rng: np.random.Generator, size: int) -> np.ndarray:
    """Cobbles, paving, a rock face or gravel."""
    n = TILE
    base = choose(rng, (142, 138, 132), (120, 118, 118), (160, 148, 132), (128, 120, 108), (150, 152, 154))
    kind = rng.integers(4)
    rough = fractal(rng, n, 1.9, coarsest=3)
    if kind == 0:  # rock face: layered and cracked
        strata = 1 - np.abs(fractal(rng, n, 3.4, (rng.uniform(1, 3.5), 1)))
        edge, _, index = cells(rng, n, int(rng.integers(3, 6)), 1.0)
        cracks = soften(np.clip((edge + 0.03 * rough) / 0.03, 0, 1).astype(np.float32), 1)
        slope = slopes(strata, 0.35) + slopes(cracks, rng.uniform(0, 0.2)) + slopes(rough, 0.28)
        tone, patch = 1 + 0.13 * fractal(rng, n, 2.4), 0.5 * fractal(rng, n, 2.8)
    else:  # cobbles, slabs, gravel
        count = int((rng.integers(5, 9), rng.integers(3, 5), rng.integers(14, 22))[kind - 1])
        edge, inside, index = cells(rng, n, count, (0.55, 0.25, 0.95)[kind - 1])
        edge = edge + 0.012 * rough
        dome = np.clip(edge / (0.30, 0.05, 0.30)[kind - 1], 0, 1)
        slope = slopes(np.sqrt(dome * (2 - dome)) - 0.2 * inside, (0.7, 0.25, 0.8)[kind - 1])
        slope += slopes(rough, 0.2)
        tone = 1 + 0.15 * rng.standard_normal(count**2)[index] + 0.08 * fractal(rng, n, 1.6)
        tone = tone * (0.45 + 0.55 * np.clip(edge / 0.05, 0, 1))  # dark joints
        patch = rng.standard_normal(count**2)[index]
    shade = light(slope, rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 1.0))
    warm = rgb(30, 8, -22) * (patch * rng.uniform(0.1, 0.45))[..., None]
    texture = (base + warm) * (tone * (0.3 + 0.7 * shade) + 0.05 * fractal(rng, n, 0.4))[..., None]
    if rng.random() < 0.3:
        texture = mix(texture, rgb(92, 104, 58) * 0.9, np.clip(fractal(rng, n, 2.2) - 0.9, 0, 0.7))  # moss
    horizon = camera(rng, 0.0) if kind else -30.0
    picture, _ = ground(texture.astype(np.float32), size, horizon, rng.uniform(0.55, 0.95))
    return picture


@painter
def wood(rng: np.random.Generator, size: int) -> np.ndarray:
    """Boards: a floor, a table or a wall, with grain, knots and joints."""
    n = TILE
    base = choose(rng, (176, 128, 82), (142, 96, 60), (200, 160, 112), (112, 74, 48), (158, 142, 124))
    boards = int(rng.integers(3, 8))
    across = np.arange(n, dtype=np.float32)[None, :] / n * boards
    board = across.astype(np.int32)
    along = np.arange(n, dtype=np.float32)[:, None] / n
    drift = fractal(rng, n, 2.8, (1, 7))
    rings = np.zeros((n, n), np.float32)
    offset, pitch = rng.uniform(0, 9, boards), rng.uniform(3, 9, boards)
    centre = rng.uniform(-0.6, 1.6, boards)
    local = across - board
    # A board cuts the tree's growth rings: parabolas along the grain, bent by drift and by knots.
    distance = np.hypot(local - centre[board], 0.5 * (along - rng.random(boards)[board])) * pitch[board]
    for _ in range(int(rng.poisson(2.0))):
        kx, ky, reach = rng.random() * boards, rng.random(), rng.uniform(0.05, 0.12)
        gap = np.hypot((across - kx) / 1.6, (along - ky) * boards / 1.6)
        distance = distance + 1.6 * np.exp(-((gap / reach / 2) ** 2)) * (board == int(kx))
        rings -= 0.9 * np.exp(-((gap / reach) ** 2)) * (board == int(kx))
    turn = distance * 2.2 + 0.35 * drift + offset[board]
    saw = turn - np.floor(turn)
    rings += 0.55 * (saw**2 - 0.33)  # late wood darkens slowly and ends sharply
    fibre = 0.5 * fractal(rng, n, 0.9, (1, 26), 4) + 0.25 * fractal(rng, n, 0.5, (1, 12), 8)
    tone = 1 - 0.30 * rings + 0.10 * fibre + 0.06 * drift + (0.10 * rng.standard_normal(boards))[board]
    joint = np.minimum(local, 1 - local) * n / boards
    tone = tone * (0.35 + 0.65 * np.clip(joint / 2.2, 0, 1))
    texture = base ** (1.15 - 0.25 * tone[..., None]) * tone[..., None]
    if rng.random() < 0.5:
        texture = texture.transpose(1, 0, 2)
    picture, _ = ground(
        np.ascontiguousarray(texture, np.float32),
        size,
        camera(rng, 0.0) if rng.random() < 0.6 else -30.0,
        rng.uniform(0.6, 1.0),
    )
    gloss = soften(np.maximum(0, fractal(rng, size, 3.6)), 6)[..., None]
    return picture * (1 + 0.10 * fractal(rng, size, 3.4)[..., None]) + rng.uniform(0, 0.07) * gloss


@painter
def foliage(rng: np.random.Generator, size: int) -> np.ndarray:
    """A hedge or the edge of a wood: leaves in layers, the far ones dark and out of focus."""
    shadow = choose(rng, (30, 42, 24), (40, 50, 30), (26, 38, 32))
    fresh = choose(rng, (118, 156, 72), (98, 140, 82), (150, 164, 84), (112, 142, 98))
    light_spots = np.clip(fractal(rng, size, 2.0, coarsest=3), -1, 2)[..., None]
    canvas = np.clip((shadow * 1.3 + 0.10 * light_spots * fresh), 0, 1)
    slender = rng.uniform(0.22, 0.55)
    scale = rng.uniform(0.035, 0.085)
    sun = rng.uniform(0, 2 * np.pi)
    droop = rng.uniform(0, 2 * np.pi)
    outline = np.array([(0, 0), (0.2, 0.62), (0.45, 1), (0.75, 0.72), (1, 0)])
    for layer, (share, blur) in enumerate([(0.22, 2.6), (0.45, 1.3), (0.72, 0.6), (1.0, 0.0)]):
        count = int(0.75 / (scale * (0.6 + share)) ** 2 / slender * (1.1, 1.0, 0.9, 0.75)[layer])
        canvas = np.ascontiguousarray((canvas * 255).clip(0, 255).astype(np.uint8))
        clumps = fractal(rng, 64, 2.2)
        at = rng.random((count, 2)) * 1.2 - 0.1
        density = clumps[tuple((at.clip(0, 0.999) * 64).astype(int).T)]
        keep = density > (-1.0, -0.6, -0.25, 0.05)[layer]
        at = at[keep]
        angle = droop + rng.normal(0, 0.9, len(at))
        length = scale * (0.6 + share) * rng.uniform(0.6, 1.3, len(at))
        glow = share**0.7 * (0.6 + 0.25 * np.cos(angle - sun) + rng.normal(0, 0.17, len(at)))
        axis = np.stack([np.cos(angle), np.sin(angle)], -1) * length[:, None]
        normal = axis[:, ::-1] * (-1, 1) * (slender / 2 * rng.uniform(0.5, 1, len(at)))[:, None]
        halves = np.stack(
            [outline[:, :1] * axis[:, None] + s * outline[:, 1:] * normal[:, None] for s in (1, -1)], 1
        )
        halves = ((at[:, None, None] + halves) * size * 16).astype(np.int32)  # (leaves, 2, corners, 2)
        # The two halves of a leaf catch the light differently.
        tone = np.maximum(0, glow[:, None] * 1.25) * (1.0, 0.76)
        colours = (shadow + (fresh - shadow) * tone[..., None]).clip(0, 1) * 255
        for leaf, pair in zip(halves, colours.tolist(), strict=True):
            cv2.fillConvexPoly(canvas, leaf[0], pair[0], cv2.LINE_AA, 4)
            cv2.fillConvexPoly(canvas, leaf[1], pair[1], cv2.LINE_AA, 4)
        canvas = soften(canvas.astype(np.float32) / 255, blur * size / 256)
    return canvas * (1 + 0.12 * fractal(rng, size, 2.8))[..., None]


@painter
def fabric(rng: np.random.Generator, size: int) -> np.ndarray:
    """Cloth with folds: plain, striped, checked or knitted."""
    n = TILE
    base = choose(
        rng,
        (168, 70, 62),
        (70, 92, 140),
        (206, 196, 178),
        (120, 124, 110),
        (184, 150, 92),
        (96, 70, 100),
        (66, 110, 108),
    )
    y, x = (np.indices((n, n), np.float32) + 0.5) / n
    bend = 0.012 * fractal(rng, n, 3.4)
    u, v = x + bend, y + 0.012 * fractal(rng, n, 3.4)
    kind = rng.integers(4)
    pattern = np.zeros((n, n), np.float32)
    if kind == 1:
        count, width = rng.integers(4, 12), rng.uniform(0.2, 0.6)
        pattern = (((u * count) % 1) < width).astype(np.float32)
    elif kind == 2:
        count = rng.integers(3, 8)
        bands = [np.clip(np.cos(2 * np.pi * t * count) * 3, 0, 1) for t in (u, v)]
        pattern = 0.5 * bands[0] + 0.5 * bands[1]
    second = choose(rng, (232, 226, 214), (48, 52, 66), (210, 190, 150), (130, 60, 60))
    cloth = mix(base, second, soften(pattern, 0.8) * rng.uniform(0.4, 0.9))
    threads = int(rng.integers(60, 110))
    if kind == 3:  # knit: columns of V-shaped stitches
        threads = int(rng.integers(22, 40))
        lean = np.abs((u * threads) % 1 - 0.5)
        weave = np.sin(2 * np.pi * (v * threads * 1.2 + lean * 1.1)) * np.sqrt(
            np.clip(1 - (4 * np.abs(lean - 0.25)) ** 2, 0, 1)
        )
        weave = weave - 0.7 * (lean < 0.05)
    else:
        over = np.sin(2 * np.pi * (u * threads + v * threads * rng.choice([0, 1])))
        weave = over + np.sin(2 * np.pi * v * threads)
    turn = rng.uniform(0, np.pi)
    folds = np.zeros((n, n), np.float32)
    warp = fractal(rng, n, 3.6)
    for _ in range(3):
        angle = turn + rng.normal(0, 0.5)
        along = (x * np.cos(angle) + y * np.sin(angle)) * rng.uniform(0.8, 2.2) + 0.16 * warp + rng.random()
        folds += (1 - np.abs(np.sin(np.pi * along))) ** 2 * rng.uniform(0.2, 1.0)
    slope = slopes(soften(folds, 7), rng.uniform(0.08, 0.5)) + slopes(
        fractal(rng, n, 4.6), rng.uniform(0.08, 0.22)
    )
    slope += slopes(weave, 0.22 if kind == 3 else rng.uniform(0.05, 0.14))
    shade = light(slope, rng.uniform(0, 2 * np.pi), rng.uniform(0.7, 1.1))
    fuzz = 0.03 * fractal(rng, n, 0.3)
    picture = cloth * (0.30 + 0.70 * shade + fuzz)[..., None]
    crop = int(rng.uniform(0.5, 0.9) * n)  # folds do not tile: stay away from the seam
    return cv2.resize(
        picture[12 : 12 + crop, 12 : 12 + crop].astype(np.float32), (size, size), interpolation=cv2.INTER_AREA
    )
