"""Scene -> picture. Needs Pillow, and the sprite sheets beside this file."""

import random
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from examples.scenes.compose import SIDES, WINDOW, Scene
from examples.scenes.vocabulary import COLOURS, NEW_THINGS, SIZES, SPRITES

# Each sheet with the emoji on it, row by row.
SHEETS = {
    Path(__file__).with_name("sprites.webp"): SPRITES,
    Path(__file__).with_name("new_sprites.webp"): NEW_THINGS,
}
CELL_PX = 96
COLUMNS = 14


@lru_cache(maxsize=1)
def _sprites() -> dict[str, Image.Image]:
    """Sprite name -> RGBA, trimmed to what is drawn."""
    sprites = {}
    for file, names in SHEETS.items():
        with Image.open(file) as opened:
            sheet = opened.convert("RGBA")
        for index, name in enumerate(names):
            x, y = index % COLUMNS * CELL_PX, index // COLUMNS * CELL_PX
            cell = sheet.crop((x, y, x + CELL_PX, y + CELL_PX))
            sprites[name] = cell.crop(cell.getbbox())
    return sprites


@lru_cache(maxsize=8192)
def _sprite(name: str, colour: str, height_px: int, mirrored: bool) -> Image.Image:
    """A thing at its size, RGBA; `height_px` is the longer side, so that wide and tall things weigh the same."""
    sprite = _sprites()[name]
    if colour:
        sprite = _painted(sprite, COLOURS[colour])
    scale = height_px / max(sprite.size)
    size = (max(1, round(sprite.width * scale)), max(1, round(sprite.height * scale)))
    sprite = sprite.resize(size, Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.BOX)
    return ImageOps.mirror(sprite) if mirrored else sprite


def _painted(sprite: Image.Image, rgb: tuple[int, int, int]) -> Image.Image:
    """The sprite in another colour: its median grey takes the colour, shade and light stay."""
    grey, alpha = sprite.convert("L"), sprite.getchannel("A")
    levels = grey.histogram(mask=alpha.point(lambda a: 255 if a > 127 else 0))
    seen, median = 0, 128
    for level, pixels in enumerate(levels):
        seen += pixels
        if seen * 2 >= sum(levels):
            median = min(max(level, 1), 254)
            break
    dark, light = tuple(c // 3 for c in rgb), tuple((c + 3 * 255) // 4 for c in rgb)
    painted = ImageOps.colorize(grey, black=dark, mid=rgb, white=light, midpoint=median)
    painted.putalpha(alpha)
    return painted


class _Stage:
    """A picture with a unit square in its middle, where the scene takes place; the backdrop fills the rest."""

    def __init__(self, picture: Image.Image, rng: random.Random) -> None:
        self.picture, self.rng = picture, rng
        self.unit = min(picture.size)
        self.left, self.top = (picture.width - self.unit) // 2, (picture.height - self.unit) // 2
        self.pen = ImageDraw.Draw(picture)

    def at(self, x: float, y: float) -> tuple[float, float]:
        return self.left + x * self.unit, self.top + y * self.unit

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: tuple[int, int, int], radius: float = 0.0) -> None:
        corners = (*self.at(x0, y0), *self.at(x1, y1))
        self.pen.rounded_rectangle(corners, radius * self.unit, fill)

    def shape(self, points: list[tuple[float, float]], fill: tuple[int, int, int]) -> None:
        self.pen.polygon([self.at(*point) for point in points], fill)

    def sprite(self, name: str, x: float, base: float, height: float, colour: str = "", width: float = 1.0) -> None:
        """Paste a thing whose middle is at `x` and whose lower edge is at `base`; `width` stretches it."""
        height_px = max(8, round(height * self.unit / 2) * 2)  # even sizes: a small cache serves all
        sprite = _sprite(name, colour, height_px, self.rng.random() < 0.5)
        if width != 1.0:
            sprite = sprite.resize((round(sprite.width * width), sprite.height), Image.Resampling.BILINEAR)
        px, py = self.at(x, base)
        self.picture.paste(sprite, (round(px - sprite.width / 2), round(py - sprite.height)), sprite)

    def row(self, scene: Scene, base: float, height: float, span: float, sunk: float = 0.0) -> None:
        """The scene's things side by side, as large as the span allows (they may overlap a little), standing on `base`,
        or with the share `sunk` of their height below it. Three and four stand in two ranks, every second one behind:
        in one rank they would be too small to tell apart."""
        ranks = 2 if scene.count > 2 else 1
        lift = 0.55 * (ranks - 1)  # of the rank behind, as a share of the height
        height = min(height, (1.2 if ranks == 1 else 1.75) * span / scene.count, (base - 0.03) / (1 + lift - sunk))
        base += sunk * height
        for i in sorted(range(scene.count), key=lambda i: i % ranks, reverse=True):  # what is behind comes first
            x = 0.5 + (i - (scene.count - 1) / 2) * span / scene.count
            wobble = self.rng.uniform(-0.012, 0.012)
            size = height * self.rng.uniform(0.92, 1.03)
            self.sprite(scene.noun, x + wobble, base - lift * height * (i % ranks), size, scene.attribute)


def draw(scene: Scene, size: tuple[int, int], rng: random.Random) -> Image.Image:
    """The scene as an RGB picture of `size` (width, height); `rng` moves and mirrors what the caption leaves open."""
    picture = _backdrop(scene.background, size, rng.randrange(6)).copy()
    stage = _Stage(picture, rng)
    if scene.relation in SIDES:
        _draw_sides(stage, scene)
    elif scene.relation == WINDOW:
        _draw_window(stage, scene)
    elif scene.relation:
        _draw_place(stage, scene)
    else:
        _draw_alone(stage, scene)
    return picture


def _draw_alone(stage: _Stage, scene: Scene) -> None:
    rng = stage.rng
    colour = scene.attribute if scene.attribute in COLOURS else ""
    if scene.count == 1:
        height = 0.5 * SIZES.get(scene.attribute, 1.0) * rng.uniform(0.94, 1.06)
        x, middle = rng.uniform(0.42, 0.58), rng.uniform(0.52, 0.58)
        stage.sprite(scene.noun, x, min(middle + height / 2, 0.97), height, colour)
        return
    spots = {2: [(0.27, 0.5), (0.73, 0.5)], 3: [(0.27, 0.3), (0.73, 0.3), (0.5, 0.73)]}.get(
        scene.count, [(0.27, 0.28), (0.73, 0.28), (0.27, 0.74), (0.73, 0.74)]
    )
    for x, y in spots:
        height = 0.4 * rng.uniform(0.92, 1.05)
        stage.sprite(
            scene.noun, x + rng.uniform(-0.03, 0.03), y + rng.uniform(-0.03, 0.03) + height / 2, height, colour
        )


def _draw_sides(stage: _Stage, scene: Scene) -> None:
    rng = stage.rng
    first, second = rng.uniform(0.24, 0.28), rng.uniform(0.72, 0.76)
    drift, height = rng.uniform(-0.07, 0.07), 0.43
    for name, colour, along, across in (
        (scene.noun, scene.attribute, first, 0.5 + drift),
        (scene.other, "", second, 0.5 - drift),
    ):
        x, y = (along, across) if scene.relation == "left" else (across, along)
        size = height * rng.uniform(0.93, 1.03)
        stage.sprite(name, x, y + size / 2, size, colour)


def _draw_window(stage: _Stage, scene: Scene) -> None:
    rng = stage.rng
    wall = rng.choice([(186, 108, 84), (205, 190, 160), (150, 160, 172)])
    mortar = tuple(min(255, c + 22) for c in wall)
    stage.box(0.06, 0.04, 0.94, 1.0, wall)
    for i in range(1, 8):
        stage.box(0.06, 0.04 + i * 0.12, 0.94, 0.05 + i * 0.12, (mortar[0], mortar[1], mortar[2]))
    stage.box(0.16, 0.14, 0.84, 0.80, (246, 244, 238))
    stage.box(0.2, 0.18, 0.8, 0.78, (72, 78, 96))
    stage.row(scene, 0.79, 0.46, 0.56)
    stage.box(0.488, 0.18, 0.512, 0.32, (246, 244, 238))
    stage.box(0.12, 0.78, 0.88, 0.85, (226, 220, 206))


def _draw_place(stage: _Stage, scene: Scene) -> None:
    rng = stage.rng
    wood, dark = (160, 106, 60), (118, 76, 42)
    match scene.relation:
        case "couch":
            cloth = rng.choice([(70, 110, 190), (170, 60, 70), (90, 140, 100)])
            shade = tuple(c * 3 // 4 for c in cloth)
            low = (shade[0], shade[1], shade[2])
            stage.box(0.08, 0.42, 0.92, 0.85, cloth, 0.06)
            stage.box(0.08, 0.70, 0.92, 0.90, low, 0.04)
            stage.row(scene, 0.74, 0.42, 0.74)
            stage.box(0.02, 0.56, 0.13, 0.92, cloth, 0.05)
            stage.box(0.87, 0.56, 0.98, 0.92, cloth, 0.05)
        case "bed":
            stage.box(0.03, 0.38, 0.08, 0.95, dark)
            stage.box(0.92, 0.58, 0.97, 0.95, dark)
            stage.box(0.06, 0.70, 0.94, 0.86, (240, 240, 245), 0.03)
            stage.box(0.30, 0.69, 0.94, 0.84, rng.choice([(110, 150, 220), (220, 120, 140)]), 0.03)
            stage.box(0.09, 0.61, 0.27, 0.71, (255, 255, 255), 0.04)
            stage.row(scene, 0.72, 0.44, 0.78)
        case "chair":
            stage.sprite("chair", 0.5, 0.99, 0.82, width=1.5)
            stage.row(scene, 0.70, 0.36, 0.80)
        case "table":
            stage.box(0.12, 0.66, 0.17, 0.97, dark)
            stage.box(0.83, 0.66, 0.88, 0.97, dark)
            stage.box(0.04, 0.62, 0.96, 0.70, wood, 0.01)
            stage.row(scene, 0.635, 0.46, 0.84)
        case "bench":
            for y in (0.46, 0.56):
                stage.box(0.05, y, 0.95, y + 0.06, (84, 124, 70))
            stage.box(0.10, 0.46, 0.14, 0.96, (60, 60, 64))
            stage.box(0.86, 0.46, 0.90, 0.96, (60, 60, 64))
            stage.row(scene, 0.76, 0.42, 0.78)
            stage.box(0.03, 0.74, 0.97, 0.81, (84, 124, 70))
        case "car":
            paint = rng.choice([(206, 44, 44), (52, 92, 190), (240, 190, 40)])
            stage.box(0.16, 0.28, 0.84, 0.66, paint, 0.10)
            stage.box(0.21, 0.34, 0.79, 0.64, (206, 228, 240), 0.06)
            stage.row(scene, 0.58, 0.34, 0.62, sunk=0.25)
            stage.box(0.02, 0.58, 0.98, 0.82, paint, 0.07)
            for x in (0.24, 0.76):
                wheel = (*stage.at(x - 0.1, 0.72), *stage.at(x + 0.1, 0.92))
                stage.pen.ellipse(wheel, (40, 40, 44))
                stage.pen.ellipse((*stage.at(x - 0.04, 0.78), *stage.at(x + 0.04, 0.86)), (190, 190, 195))
        case "boat":
            stage.row(scene, 0.62, 0.48, 0.70, sunk=0.25)
            hull = rng.choice([(150, 84, 44), (190, 60, 54), (60, 90, 130)])
            stage.shape([(0.02, 0.62), (0.98, 0.62), (0.82, 0.88), (0.18, 0.88)], hull)
            stage.shape([(0.02, 0.62), (0.98, 0.62), (0.96, 0.66), (0.04, 0.66)], (240, 232, 214))
            stage.box(0.0, 0.86, 1.0, 0.93, (80, 150, 205), 0.03)
        case "box":
            stage.shape([(0.14, 0.52), (0.86, 0.52), (0.80, 0.62), (0.20, 0.62)], (140, 100, 60))
            stage.row(scene, 0.60, 0.48, 0.66, sunk=0.25)
            stage.box(0.14, 0.60, 0.86, 0.95, (204, 160, 104))
            stage.box(0.46, 0.60, 0.54, 0.95, (226, 196, 146))
        case "bathtub":
            stage.row(scene, 0.58, 0.46, 0.74, sunk=0.25)
            stage.box(0.05, 0.60, 0.95, 0.88, (250, 252, 255), 0.10)
            stage.box(0.03, 0.58, 0.97, 0.64, (214, 226, 238), 0.02)
            for x in (0.16, 0.36, 0.62, 0.82):
                bubble = (*stage.at(x - 0.04, 0.56), *stage.at(x + 0.04, 0.64))
                stage.pen.ellipse(bubble, (236, 246, 255), (170, 200, 225))
        case "umbrella":
            stage.sprite("umbrella", 0.5, 0.86, 0.84, width=1.25)
            stage.row(scene, 0.97, 0.40, 0.88)
        case "tree":
            stage.sprite("tree", 0.5, 0.90, 0.88, width=1.2)
            stage.row(scene, 0.97, 0.38, 0.88)
        case "fence":
            stage.row(scene, 0.62, 0.48, 0.86, sunk=0.35)
            for i in range(9):
                x = 0.04 + i * 0.115
                stage.shape(
                    [(x - 0.028, 0.98), (x - 0.028, 0.64), (x, 0.59), (x + 0.028, 0.64), (x + 0.028, 0.98)],
                    (244, 240, 232),
                )
            for y in (0.70, 0.86):
                stage.box(0.0, y, 1.0, y + 0.045, (226, 218, 204))
        case unknown:
            raise ValueError(f"no drawing for the place {unknown!r}")


@lru_cache(maxsize=2048)
def _backdrop(background: str, size: tuple[int, int], variant: int) -> Image.Image:
    """What is behind everything, RGB; a `variant` moves the details."""
    rng = random.Random(f"{background}/{variant}")
    w, h = size
    sky, ground = {
        "": ((236, 234, 228), (206, 204, 200)),
        "snow": ((206, 222, 238), (246, 249, 253)),
        "sea": ((150, 206, 240), (36, 112, 178)),
        "night": ((10, 14, 44), (26, 30, 58)),
        "desert": ((250, 222, 160), (226, 176, 104)),
        "meadow": ((170, 220, 250), (112, 180, 76)),
        "forest": ((150, 190, 160), (54, 92, 52)),
        "sunset": ((250, 130, 60), (120, 50, 90)),
        "rain": ((126, 138, 152), (92, 102, 114)),
        "city": ((184, 196, 210), (112, 112, 118)),
    }[background]
    tint = rng.uniform(0.94, 1.05)
    sky, ground = (
        (min(255, int(c[0] * tint)), min(255, int(c[1] * tint)), min(255, int(c[2] * tint))) for c in (sky, ground)
    )
    horizon = rng.uniform(0.5, 0.64)
    picture = Image.new("RGB", size, ground)
    ramp = Image.linear_gradient("L").resize((w, max(1, round(h * horizon))))
    picture.paste(
        ImageOps.colorize(ramp, sky, tuple((s * 2 + g) // 3 for s, g in zip(sky, ground, strict=True))), (0, 0)
    )
    pen = ImageDraw.Draw(picture)
    unit = min(size)

    def dots(count: int, y1: float, radius: float, fill: tuple[int, int, int]) -> None:
        for _ in range(round(count * max(size) / unit)):
            x, y, r = rng.uniform(0, w), rng.uniform(0, y1 * h), radius * unit * rng.uniform(0.5, 1.0)
            pen.ellipse((x - r, y - r, x + r, y + r), fill)

    match background:
        case "snow":
            dots(60, 1.0, 0.012, (255, 255, 255))
        case "sea":
            for _ in range(14):
                x, y = rng.uniform(0, w), rng.uniform(horizon * h, 0.86 * h)
                pen.arc(
                    (x - 0.06 * unit, y, x + 0.06 * unit, y + 0.05 * unit),
                    200,
                    340,
                    (200, 230, 248),
                    max(1, unit // 80),
                )
            pen.rectangle((0, 0.88 * h, w, h), (236, 214, 160))
        case "night":
            dots(40, horizon, 0.008, (250, 246, 214))
            x, y, r = rng.uniform(0.05, 0.95) * w, 0.12 * h, 0.07 * unit
            pen.ellipse((x - r, y - r, x + r, y + r), (248, 240, 190))
        case "desert":
            for i in range(3):
                x, y = rng.uniform(0, w), h * (horizon + 0.12 * i)
                pen.ellipse((x - 0.7 * unit, y, x + 0.7 * unit, y + 0.5 * unit), (214 + 8 * i, 162 + 8 * i, 92 + 8 * i))
        case "meadow":
            dots(30, 1.0, 0.0, ground)
            for _ in range(70):
                x, y = rng.uniform(0, w), rng.uniform(horizon * h, h)
                pen.line(
                    (x, y, x + rng.uniform(-0.02, 0.02) * unit, y - 0.05 * unit), (70, 140, 50), max(1, unit // 90)
                )
        case "forest":
            for _ in range(round(12 * w / unit)):
                x, tall = rng.uniform(0, w), rng.uniform(0.35, 0.55) * h
                base = horizon * h + rng.uniform(0, 0.08) * h
                green = rng.choice([(34, 84, 50), (46, 104, 58), (28, 70, 44)])
                pen.polygon([(x, base - tall), (x - 0.12 * unit, base), (x + 0.12 * unit, base)], green)
        case "sunset":
            x, y, r = rng.uniform(0.15, 0.85) * w, horizon * h, 0.16 * unit
            pen.ellipse((x - r, y - r, x + r, y + r), (255, 226, 130))
            pen.rectangle((0, y, w, h), ground)
        case "rain":
            for _ in range(round(70 * max(size) / unit)):
                x, y = rng.uniform(0, w), rng.uniform(0, h)
                pen.line((x, y, x - 0.02 * unit, y + 0.07 * unit), (196, 210, 224), max(1, unit // 110))
        case "city":
            x = 0.0
            while x < w:
                wide, tall = rng.uniform(0.1, 0.2) * unit, rng.uniform(0.25, 0.55) * h
                grey = rng.randrange(80, 130)
                pen.rectangle((x, horizon * h - tall, x + wide, horizon * h), (grey, grey, grey + 14))
                for i in range(1, 6):
                    y = horizon * h - tall + i * 0.08 * unit
                    pen.line((x + 0.2 * wide, y, x + 0.8 * wide, y), (232, 220, 150), max(1, unit // 60))
                x += wide * 1.1
    return picture
