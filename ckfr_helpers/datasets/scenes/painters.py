"""Nine kinds of place, painted: grass, sand, water, snow, sky, stone, wood, foliage and fabric.

Each painter makes a new instance from a random generator: other light, other camera height, other colours,
other materials. A painter returns (size, size, 3) float32 around [0, 1], RGB.
"""

from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
from numpy.random import Generator

from ckfr_helpers.datasets.scenes.noise import cells, fractal, ground, light, mix, slopes, soften

TILE = 384  # side of the textures that are laid on the ground


def rgb(*values: float) -> np.ndarray:
    """A colour from 0..255 values, as float32 in [0, 1]."""
    return np.array(values, np.float32) / 255


def choose(rng: Generator, *colours: str) -> np.ndarray:
    """One of several colours ``#rrggbb``, a little brighter or darker and a little off."""
    colour = rgb(*bytes.fromhex(colours[rng.integers(len(colours))][1:]))
    return (colour * rng.normal(1, 0.08) + rng.normal(0, 0.02, 3)).clip(0, 1).astype(np.float32)


def camera(rng: Generator, see_horizon: float = 0.4) -> float:
    """Height of the horizon in the picture; negative when the camera looks down."""
    return float(rng.uniform(0.1, 0.34) if rng.random() < see_horizon else rng.uniform(-1.2, -0.15))


def outdoors(
    rng: Generator, land: np.ndarray, depth: np.ndarray, horizon: float, behind: np.ndarray
) -> np.ndarray:
    """Put sky above the land, fade it with distance, and cover the horizon with trees or hills ``behind``."""
    size = land.shape[0]
    if horizon <= 0:
        return land
    haze = (1 - np.exp(-(depth - 1) * rng.uniform(0.01, 0.03)))[:, None] * np.ones(size, np.float32)
    top, low = choose(rng, "#78a5d7", "#a5bed7", "#bec8d0"), choose(rng, "#d7e2eb")
    height = np.linspace(0, 3, size, dtype=np.float32)[:, None] + 0.08 * fractal(rng, size, 2.6, (3, 1))
    sky = mix(top, low, height)
    land = mix(land, sky[int(horizon * size)].mean(0), haze * 0.7)
    y = ((np.arange(size) + 0.5) / size)[:, None]
    picture = mix(sky, land, soften((y > horizon) * np.ones(size, np.float32), size / 400))
    rough = fractal(rng, size, rng.uniform(1.7, 4.0))[0]
    ridge = (horizon - rng.uniform(0.0, 0.11) - 0.018 * np.abs(rough))[None, :]
    skyline = soften(((y > ridge) & (y < horizon)).astype(np.float32), size / 256)
    leaves = mix(behind * 0.7, behind * 1.1, 0.5 + 0.3 * fractal(rng, size, 1.4))
    return mix(picture, leaves, skyline)


def grass(rng: Generator, size: int) -> np.ndarray:
    """Lawn or meadow: thousands of blades, drawn from far to near."""
    horizon = camera(rng)
    root, tip = choose(rng, "#34441e", "#424c24"), choose(rng, "#889e4c", "#9ea85c", "#709242")
    patches = fractal(rng, TILE, 1.5)
    turf = mix(root, tip, 0.45 + 0.2 * patches + 0.13 * fractal(rng, TILE, 0.6))
    land, depth = ground(turf, size, horizon, 1.5)
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
    return outdoors(rng, picture, depth, horizon, choose(rng, "#3e5232", "#505c46"))


def sand(rng: Generator, size: int) -> np.ndarray:
    """Beach or dune: wind ripples under a low sun, and grains."""
    horizon = camera(rng, 0.3)
    base = choose(rng, "#d6bc92", "#e2ceaa", "#c8aa80", "#bea88c")
    n, tile = TILE, partial(fractal, rng, TILE)
    across = np.arange(n, dtype=np.float32) / n
    turns, skew = rng.integers(6, 20), rng.integers(-2, 3)
    wander = 0.55 * tile(2.6, coarsest=1.0) + 0.12 * tile(1.6, coarsest=6)
    phase = 2 * np.pi * (turns * across[:, None] + skew * across[None, :]) + 2.2 * wander
    # Ripples have a long windward and a short lee side.
    ripples = np.sin(phase + 0.45 * np.sin(phase)) * (0.6 + 0.4 * np.tanh(tile(2.5)))
    slope = slopes(ripples, rng.choice([0.0, 0.1, 0.2, 0.3])) + slopes(tile(4.4), rng.uniform(0.05, 0.16))
    slope += slopes(tile(2.6, coarsest=4), 0.1) + slopes(tile(0.5), 0.06)
    shade = light(slope, rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 0.9))
    texture = base * (0.28 + 0.72 * shade + 0.055 * tile(0.15))[..., None]  # with grains
    texture = texture + rgb(10, 6, 2) * tile(2.0)[..., None]
    land, depth = ground(texture.astype(np.float32), size, horizon, rng.uniform(0.7, 1.3))
    return outdoors(rng, land, depth, horizon, choose(rng, "#96a5aa", "#af9b7d", "#6e7864"))


def water(rng: Generator, size: int) -> np.ndarray:
    """Lake or sea: waves that mirror the sky where they tilt away and show the deep where they do not."""
    horizon = camera(rng, 0.45)
    tile, long = partial(fractal, rng, TILE), rng.uniform(1.5, 3.2)
    waves = slopes(tile(rng.uniform(4.2, 5.2), (1, long), rng.uniform(4, 9)), rng.uniform(0.16, 0.42))
    waves += slopes(tile(3.2, (1, 1.5), 14), rng.uniform(0.06, 0.2))
    slope, depth = ground(waves, size, horizon, rng.uniform(0.7, 1.4))
    slope *= 2 / (1 + depth[:, None, None] ** 0.5)  # far waves hide each other's slopes
    y = (np.arange(size, dtype=np.float32)[:, None] + 0.5) / size
    # The steeper we look down, the less the surface mirrors (Schlick's form of Fresnel's law).
    grazing = np.clip(0.62 * (1 - (y - horizon) / (1 - horizon)) + 0.26 - 1.1 * slope[..., 1], 0, 1)
    mirror = 0.05 + 0.95 * grazing**1.7
    zenith, rim = choose(rng, "#6996c8", "#96afc8", "#788ca0"), choose(rng, "#dee6eb")
    sky = mix(zenith, rim, 0.25 + grazing * 0.9 + 0.25 * slope[..., 0])
    deep = choose(rng, "#123e52", "#1c4642", "#0e3058", "#285052", "#1e6e7a")
    body = deep * (1 + 0.5 * np.clip(slope[..., 1:], -1, 1) + 0.10 * fractal(rng, size, 2.5)[..., None])
    picture = mix(body, sky, mirror)
    sun = np.clip(slope @ np.array([np.cos(t := rng.uniform(0, np.pi)), np.sin(t)], np.float32), 0, None)
    glint = np.clip(sun / (sun.max() + 1e-6) * 1.5 - rng.uniform(0.75, 1.05), 0, 1) ** 1.5
    picture = mix(picture, rgb(252, 252, 246), soften(glint, 0.5) * rng.uniform(0.3, 0.95))
    return outdoors(rng, picture, depth, horizon, choose(rng, "#5a6e78", "#465848", "#8c9ba5"))


def snow(rng: Generator, size: int) -> np.ndarray:
    """Snowfield: soft drifts, blue in the shade, with crust and sometimes tracks."""
    horizon = camera(rng, 0.5)
    n, tile = TILE, partial(fractal, rng, TILE)
    slope = slopes(tile(rng.uniform(4.2, 5.4), (rng.uniform(1.0, 2.2), 1)), rng.uniform(0.10, 0.26))
    slope += slopes(tile(2.8, (1.5, 1), 6), rng.uniform(0.03, 0.10)) + slopes(tile(0.5), 0.035)
    if rng.random() < 0.25:  # a line of footprints
        start, heading = rng.random(2), rng.uniform(-0.6, 0.6)
        for step in range(14):
            side = 0.012 * (-1) ** step
            at = start + step * 0.055 * np.array([np.sin(heading), np.cos(heading)]) + side
            centre = tuple(int(v) for v in at % 1 * n)
            print_ = np.zeros((n, n), np.float32)
            cv2.ellipse(print_, centre, (6, 11), np.degrees(-heading), 0, 360, 1.0, -1)
            slope -= slopes(soften(print_, 2), 0.03)
    shade = light(slope, rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 0.75))
    lit, dark = choose(rng, "#f6f8fc", "#faf8f6"), choose(rng, "#96aacd", "#a4b0c8")
    texture = mix(dark, lit, 0.15 + 0.66 * shade + 0.04 * tile(0.4))
    texture += (rng.random((n, n, 1)) > 0.9985) * 0.3  # glitter
    land, depth = ground(texture.astype(np.float32), size, horizon, rng.uniform(0.6, 1.1))
    return outdoors(rng, land, depth, horizon, choose(rng, "#485456", "#606c76", "#34403c"))


def sky(rng: Generator, size: int) -> np.ndarray:
    """Clear, scattered or overcast sky, from noon to evening."""
    evening = rng.random() < 0.25
    if evening:
        top, low = choose(rng, "#465c8c", "#606e96"), choose(rng, "#f0ba8c", "#e8c8b2")
    else:
        top, low = choose(rng, "#3470be", "#548cd0"), choose(rng, "#b8d4ec", "#cedeea")
    y = np.linspace(0, 1, size, dtype=np.float32)[:, None] * np.ones(size, np.float32)
    picture = mix(top, low, y ** rng.uniform(0.8, 1.6))
    tile = partial(fractal, rng, TILE)
    field = tile(rng.uniform(3.3, 4.0), (rng.uniform(1, 2.4), 1), 1.5)
    wisps = field + rng.uniform(0.06, 0.22) * tile(2.2, coarsest=8)
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


def stone(rng: Generator, size: int) -> np.ndarray:
    """Cobbles, paving, a rock face or gravel."""
    n, tile = TILE, partial(fractal, rng, TILE)
    base = choose(rng, "#8e8a84", "#787676", "#a09484", "#80786c", "#96989a")
    kind = rng.integers(4)
    rough = tile(1.9, coarsest=3)
    if kind == 0:  # rock face: layered and cracked
        strata = 1 - np.abs(tile(3.4, (rng.uniform(1, 3.5), 1)))
        edge, _, index = cells(rng, n, int(rng.integers(3, 6)), 1.0)
        cracks = soften(np.clip((edge + 0.03 * rough) / 0.03, 0, 1).astype(np.float32), 1)
        slope = slopes(strata, 0.35) + slopes(cracks, rng.uniform(0, 0.2)) + slopes(rough, 0.28)
        tone, patch = 1 + 0.13 * tile(2.4), 0.5 * tile(2.8)
    else:  # cobbles, slabs, gravel
        count = int((rng.integers(5, 9), rng.integers(3, 5), rng.integers(14, 22))[kind - 1])
        edge, inside, index = cells(rng, n, count, (0.55, 0.25, 0.95)[kind - 1])
        edge = edge + 0.012 * rough
        dome = np.clip(edge / (0.30, 0.05, 0.30)[kind - 1], 0, 1)
        slope = slopes(np.sqrt(dome * (2 - dome)) - 0.2 * inside, (0.7, 0.25, 0.8)[kind - 1])
        slope += slopes(rough, 0.2)
        tone = 1 + 0.15 * rng.standard_normal(count**2)[index] + 0.08 * tile(1.6)
        tone = tone * (0.45 + 0.55 * np.clip(edge / 0.05, 0, 1))  # dark joints
        patch = rng.standard_normal(count**2)[index]
    shade = light(slope, rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 1.0))
    warm = rgb(30, 8, -22) * (patch * rng.uniform(0.1, 0.45))[..., None]
    texture = (base + warm) * (tone * (0.3 + 0.7 * shade) + 0.05 * tile(0.4))[..., None]
    if rng.random() < 0.3:
        texture = mix(texture, rgb(92, 104, 58) * 0.9, np.clip(tile(2.2) - 0.9, 0, 0.7))  # moss
    horizon = camera(rng, 0.0) if kind else -30.0
    return ground(texture.astype(np.float32), size, horizon, rng.uniform(0.55, 0.95))[0]


def wood(rng: Generator, size: int) -> np.ndarray:
    """Boards: a floor, a table or a wall, with grain, knots and joints."""
    n, tile = TILE, partial(fractal, rng, TILE)
    base = choose(rng, "#b08052", "#8e603c", "#c8a070", "#704a30", "#9e8e7c")
    boards = int(rng.integers(3, 8))
    across = np.arange(n, dtype=np.float32)[None, :] / n * boards
    board = across.astype(np.int32)
    along = np.arange(n, dtype=np.float32)[:, None] / n
    drift = tile(2.8, (1, 7))
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
    fibre = 0.5 * tile(0.9, (1, 26), 4) + 0.25 * tile(0.5, (1, 12), 8)
    tone = 1 - 0.30 * rings + 0.10 * fibre + 0.06 * drift + (0.10 * rng.standard_normal(boards))[board]
    joint = np.minimum(local, 1 - local) * n / boards
    tone = tone * (0.35 + 0.65 * np.clip(joint / 2.2, 0, 1))
    texture = base ** (1.15 - 0.25 * tone[..., None]) * tone[..., None]
    if rng.random() < 0.5:
        texture = texture.transpose(1, 0, 2)
    horizon = camera(rng, 0.0) if rng.random() < 0.6 else -30.0
    picture, _ = ground(np.ascontiguousarray(texture, np.float32), size, horizon, rng.uniform(0.6, 1.0))
    gloss = soften(np.maximum(0, fractal(rng, size, 3.6)), 6)[..., None]
    return picture * (1 + 0.10 * fractal(rng, size, 3.4)[..., None]) + rng.uniform(0, 0.07) * gloss


def foliage(rng: Generator, size: int) -> np.ndarray:
    """A hedge or the edge of a wood: leaves in layers, the far ones dark and out of focus."""
    shadow = choose(rng, "#1e2a18", "#28321e", "#1a2620")
    fresh = choose(rng, "#769c48", "#628c52", "#96a454", "#708e62")
    light_spots = np.clip(fractal(rng, size, 2.0, coarsest=3), -1, 2)[..., None]
    canvas = np.clip(shadow * 1.3 + 0.10 * light_spots * fresh, 0, 1)
    slender, scale = rng.uniform(0.22, 0.55), rng.uniform(0.035, 0.085)
    sun, droop = rng.uniform(0, 2 * np.pi, 2)
    outline = np.array([(0, 0), (0.2, 0.62), (0.45, 1), (0.75, 0.72), (1, 0)])
    for layer, (share, blur) in enumerate([(0.22, 2.6), (0.45, 1.3), (0.72, 0.6), (1.0, 0.0)]):
        count = int(0.75 / (scale * (0.6 + share)) ** 2 / slender * (1.1, 1.0, 0.9, 0.75)[layer])
        canvas = np.ascontiguousarray((canvas * 255).clip(0, 255).astype(np.uint8))
        clumps = fractal(rng, 64, 2.2)
        at = rng.random((count, 2)) * 1.2 - 0.1
        density = clumps[tuple((at.clip(0, 0.999) * 64).astype(int).T)]
        at = at[density > (-1.0, -0.6, -0.25, 0.05)[layer]]
        angle = droop + rng.normal(0, 0.9, len(at))
        length = scale * (0.6 + share) * rng.uniform(0.6, 1.3, len(at))
        glow = share**0.7 * (0.6 + 0.25 * np.cos(angle - sun) + rng.normal(0, 0.17, len(at)))
        axis = np.stack([np.cos(angle), np.sin(angle)], -1) * length[:, None]
        normal = axis[:, ::-1] * (-1, 1) * (slender / 2 * rng.uniform(0.5, 1, len(at)))[:, None]
        along, across = outline[:, :1] * axis[:, None], outline[:, 1:] * normal[:, None]
        halves = np.stack([along + across, along - across], 1)
        halves = ((at[:, None, None] + halves) * size * 16).astype(np.int32)  # (leaves, 2, corners, 2)
        # The two halves of a leaf catch the light differently.
        tone = np.maximum(0, glow[:, None] * 1.25) * (1.0, 0.76)
        colours = (shadow + (fresh - shadow) * tone[..., None]).clip(0, 1) * 255
        for leaf, pair in zip(halves, colours.tolist(), strict=True):
            for half, colour in zip(leaf, pair, strict=True):
                cv2.fillConvexPoly(canvas, half, colour, cv2.LINE_AA, 4)
        canvas = soften(canvas.astype(np.float32) / 255, blur * size / 256)
    return canvas * (1 + 0.12 * fractal(rng, size, 2.8))[..., None]


def fabric(rng: Generator, size: int) -> np.ndarray:
    """Cloth with folds: plain, striped, checked or knitted."""
    n, tile = TILE, partial(fractal, rng, TILE)
    base = choose(rng, "#a8463e", "#465c8c", "#cec4b2", "#787c6e", "#b8965c", "#604664", "#426e6c")
    y, x = (np.indices((n, n), np.float32) + 0.5) / n
    bend = 0.012 * tile(3.4)
    u, v = x + bend, y + 0.012 * tile(3.4)
    kind = rng.integers(4)
    pattern = np.zeros((n, n), np.float32)
    if kind == 1:
        count, width = rng.integers(4, 12), rng.uniform(0.2, 0.6)
        pattern = (((u * count) % 1) < width).astype(np.float32)
    elif kind == 2:
        count = rng.integers(3, 8)
        pattern = sum(0.5 * np.clip(np.cos(2 * np.pi * t * count) * 3, 0, 1) for t in (u, v))
    second = choose(rng, "#e8e2d6", "#303442", "#d2be96", "#823c3c")
    cloth = mix(base, second, soften(pattern, 0.8) * rng.uniform(0.4, 0.9))
    threads = int(rng.integers(60, 110))
    if kind == 3:  # knit: columns of V-shaped stitches
        threads = int(rng.integers(22, 40))
        lean = np.abs((u * threads) % 1 - 0.5)
        stitch = np.sqrt(np.clip(1 - (4 * np.abs(lean - 0.25)) ** 2, 0, 1))
        weave = np.sin(2 * np.pi * (v * threads * 1.2 + lean * 1.1)) * stitch - 0.7 * (lean < 0.05)
    else:
        weave = np.sin(2 * np.pi * (u * threads + v * threads * rng.choice([0, 1])))
        weave = weave + np.sin(2 * np.pi * v * threads)
    turn, warp = rng.uniform(0, np.pi), tile(3.6)
    folds = np.zeros((n, n), np.float32)
    for _ in range(3):
        angle = turn + rng.normal(0, 0.5)
        along = (x * np.cos(angle) + y * np.sin(angle)) * rng.uniform(0.8, 2.2) + 0.16 * warp + rng.random()
        folds += (1 - np.abs(np.sin(np.pi * along))) ** 2 * rng.uniform(0.2, 1.0)
    slope = slopes(soften(folds, 7), rng.uniform(0.08, 0.5)) + slopes(tile(4.6), rng.uniform(0.08, 0.22))
    slope += slopes(weave, 0.22 if kind == 3 else rng.uniform(0.05, 0.14))
    shade = light(slope, rng.uniform(0, 2 * np.pi), rng.uniform(0.7, 1.1))
    picture = cloth * (0.30 + 0.70 * shade + 0.03 * tile(0.3))[..., None]  # with fuzz
    crop = int(rng.uniform(0.5, 0.9) * n)  # folds do not tile: stay away from the seam
    window = picture[12 : 12 + crop, 12 : 12 + crop].astype(np.float32)
    return cv2.resize(window, (size, size), interpolation=cv2.INTER_AREA)


PAINTERS: dict[str, Callable[[Generator, int], np.ndarray]] = {
    one.__name__: one for one in (grass, sand, water, snow, sky, stone, wood, foliage, fabric)
}
