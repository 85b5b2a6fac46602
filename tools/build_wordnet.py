"""Rebuild ``data/wordnet.tsv`` from WordNet 3.0.

    python tools/build_wordnet.py                     # WordNet from $CKFR_WORDNET, NLTK's data or Debian's
    python tools/build_wordnet.py --wordnet FOLDER    # the folder with data.noun
    python tools/build_wordnet.py --check             # exit 1 if the file is not what this would write

Which synsets: one for every class of ImageNet (21,841 ids, from timm's own lists), every animal, plant and
food, the classes of CIFAR, VOC and COCO below, the photographs of ``data/photos.csv``, and every hypernym of
these up to *entity*.
"""

import argparse
import csv
import importlib.util
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ckfr_helpers.runtime import CkfrError, atomic_path, data_root

DATA = Path(__file__).resolve().parent.parent / "data"

# CIFAR names its classes with a word; the synset is our choice, by its definition. Where there was a doubt:
#   aquarium_fish  WordNet has none; goldfish are by their definition "used as pond or aquarium fishes"
#   boy, girl      the child (male_child, female_child), as girl.n.01 is "a young woman" and so below woman
#   bowl           the dish, above ImageNet's soup bowl and mixing bowl
#   cat            the true cat: house cats and wild cats alike
#   forest         the land, beside mountain and plain
#   keyboard       of a computer: the superclass is household electrical devices
#   lamp           the piece of furniture, not any source of light
#   mushroom, orange, pear, apple, sweet_pepper   the food: the superclass is fruit and vegetables
#   rocket         the vehicle
#   whale          has dolphin below it in WordNet; Hierarchy.from_wordnet then gives it a leaf of its own
CIFAR10 = """
airplane n02691156 automobile n02958343 bird n01503061 cat n02121620 deer n02430045 dog n02084071
frog n01639765 horse n02374451 ship n04194289 truck n04490091
"""
CIFAR100 = """
apple n07739125 aquarium_fish n01443537 baby n09827683 bear n02131653 beaver n02363005 bed n02818832
bee n02206856 beetle n02164464 bicycle n02834778 bottle n02876657 bowl n02880940 boy n10285313
bridge n02898711 bus n02924116 butterfly n02274259 camel n02437136 can n02946921 castle n02980441
caterpillar n02309337 cattle n02402425 chair n03001627 chimpanzee n02481823 clock n03046257 cloud n09247410
cockroach n02233338 couch n04256520 crab n01976957 crocodile n01697178 cup n03147509 dinosaur n01699831
dolphin n02068974 elephant n02503517 flatfish n02657368 forest n09284015 fox n02118333 girl n10084295
hamster n02342885 house n03544360 kangaroo n01877134 keyboard n03085013 lamp n03636649 lawn_mower n03649909
leopard n02128385 lion n02129165 lizard n01674464 lobster n01982650 man n10287213 maple_tree n12752205
motorcycle n03790512 mountain n09359803 mouse n02330245 mushroom n07734744 oak_tree n12268246
orange n07747607 orchid n12041446 otter n02444819 palm_tree n12582231 pear n07767847 pickup_truck n03930630
pine_tree n11608250 plain n09393605 plate n03959485 poppy n11900569 porcupine n02346627 possum n01874928
rabbit n02324045 raccoon n02508021 ray n01495701 road n04096066 rocket n04099429 rose n12620196
sea n09426788 seal n02076196 shark n01482330 shrew n01891633 skunk n02445715 skyscraper n04233124
snail n01944390 snake n01726692 spider n01772222 squirrel n02355227 streetcar n04335435 sunflower n11978233
sweet_pepper n07720615 table n04379243 tank n04389033 telephone n04401088 television n04405907
tiger n02129604 tractor n04465501 train n04468005 trout n02537085 tulip n12454159 turtle n01662784
wardrobe n04550184 whale n02062744 willow_tree n12724942 wolf n02114100 woman n10787470 worm n01922303
"""
# PASCAL VOC and COCO name their classes with words too. Where there was a doubt:
#   apple, banana, orange, broccoli, carrot   the food, as for CIFAR
#   bear        has no teddy bear below it, which is a plaything
#   bowl, cup   the dish, as for CIFAR, and the container
#   cat         the true cat, as for CIFAR
#   cow         cattle of either sex and any age
#   donut, hot_dog      WordNet has them below cake and sandwich, which then get leaves of their own
#   keyboard, mouse     of a computer
#   knife       the cutting instrument, not the weapon
#   potted_plant        WordNet's pot plant, "suitable for growing in a flowerpot (especially indoors)"
#   sports_ball the round object that is hit or thrown or kicked in games
#   stop_sign, traffic_light    visual signals, as ImageNet has street sign and traffic light
#   suitcase    the traveling bag, whose other name it is
#   train       public transport, cars coupled together
VOC2007 = """
aeroplane n02691156 bicycle n02834778 bird n01503061 boat n02858304 bottle n02876657 bus n02924116
car n02958343 cat n02121620 chair n03001627 cow n02402425 diningtable n03201208 dog n02084071
horse n02374451 motorbike n03790512 person n00007846 pottedplant n11536230 sheep n02411705 sofa n04256520
train n04468005 tvmonitor n04405907
"""
COCO = """
airplane n02691156 apple n07739125 backpack n02769748 banana n07753592 baseball_bat n02799175
baseball_glove n02800213 bear n02131653 bed n02818832 bench n02828884 bicycle n02834778 bird n01503061
boat n02858304 book n02870092 bottle n02876657 bowl n02880940 broccoli n07714990 bus n02924116
cake n07628870 car n02958343 carrot n07730207 cat n02121620 cell_phone n02992529 chair n03001627
clock n03046257 couch n04256520 cow n02402425 cup n03147509 dining_table n03201208 dog n02084071
donut n07639069 elephant n02503517 fire_hydrant n03346898 fork n03383948 frisbee n03397947
giraffe n02439033 hair_drier n03483316 handbag n02774152 horse n02374451 hot_dog n07697537
keyboard n03085013 kite n03621473 knife n03623556 laptop n03642806 microwave n03761084
motorcycle n03790512 mouse n03793489 orange n07747607 oven n03862676 parking_meter n03891332
person n00007846 pizza n07873807 potted_plant n11536230 refrigerator n04070727 remote n04074963
sandwich n07695965 scissors n04148054 sheep n02411705 sink n04223580 skateboard n04225987 skis n04228054
snowboard n04251791 spoon n04284002 sports_ball n02778669 stop_sign n06794110 suitcase n02773838
surfboard n04363559 teddy_bear n04399382 tennis_racket n04409806 tie n03815615 toaster n04442312
toilet n04446521 toothbrush n04453156 traffic_light n06874185 train n04468005 truck n04490091 tv n04405907
umbrella n04507155 vase n04522168 wine_glass n04592099 zebra n02391049
"""
# Tiny-ImageNet-200's wnids.txt, sorted; all are among the 1000 of ILSVRC 2012.
TINY_IMAGENET = """
n01443537 n01629819 n01641577 n01644900 n01698640 n01742172 n01768244 n01770393 n01774384 n01774750
n01784675 n01855672 n01882714 n01910747 n01917289 n01944390 n01945685 n01950731 n01983481 n01984695
n02002724 n02056570 n02058221 n02074367 n02085620 n02094433 n02099601 n02099712 n02106662 n02113799
n02123045 n02123394 n02124075 n02125311 n02129165 n02132136 n02165456 n02190166 n02206856 n02226429
n02231487 n02233338 n02236044 n02268443 n02279972 n02281406 n02321529 n02364673 n02395406 n02403003
n02410509 n02415577 n02423022 n02437312 n02480495 n02481823 n02486410 n02504458 n02509815 n02666196
n02669723 n02699494 n02730930 n02769748 n02788148 n02791270 n02793495 n02795169 n02802426 n02808440
n02814533 n02814860 n02815834 n02823428 n02837789 n02841315 n02843684 n02883205 n02892201 n02906734
n02909870 n02917067 n02927161 n02948072 n02950826 n02963159 n02977058 n02988304 n02999410 n03014705
n03026506 n03042490 n03085013 n03089624 n03100240 n03126707 n03160309 n03179701 n03201208 n03250847
n03255030 n03355925 n03388043 n03393912 n03400231 n03404251 n03424325 n03444034 n03447447 n03544143
n03584254 n03599486 n03617480 n03637318 n03649909 n03662601 n03670208 n03706229 n03733131 n03763968
n03770439 n03796401 n03804744 n03814639 n03837869 n03838899 n03854065 n03891332 n03902125 n03930313
n03937543 n03970156 n03976657 n03977966 n03980874 n03983396 n03992509 n04008634 n04023962 n04067472
n04070727 n04074963 n04099969 n04118538 n04133789 n04146614 n04149813 n04179913 n04251144 n04254777
n04259630 n04265275 n04275548 n04285008 n04311004 n04328186 n04356056 n04366367 n04371430 n04376876
n04398044 n04399382 n04417672 n04456115 n04465501 n04486054 n04487081 n04501370 n04507155 n04532106
n04532670 n04540053 n04560804 n04562935 n04596742 n04597913 n06596364 n07579787 n07583066 n07614500
n07615774 n07695742 n07711569 n07715103 n07720875 n07734744 n07747607 n07749582 n07753592 n07768694
n07871810 n07873807 n07875152 n07920052 n09193705 n09246464 n09256479 n09332890 n09428293 n12267677
"""
# Whatever a photo list may name: animals, plants, food (nutrients) and food (solid food).
WHOLE_BRANCHES = ("n00015388", "n00017222", "n00021265", "n07555863")

HEADER = """\
# WordNet 3.0 nouns with all their hypernyms, in WordNet's order; instance hypernyms included.
# An excerpt in another form, written by tools/build_wordnet.py; do not edit. Last column: dataset lists,
# LIST or LIST:CLASS. WordNet's licence:
#
# This software and database is being provided to you, the LICENSEE, by
# Princeton University under the following license. By obtaining, using
# and/or copying this software and database, you agree that you have
# read, understood, and will comply with these terms and conditions.:
#
# Permission to use, copy, modify and distribute this software and
# database and its documentation for any purpose and without fee or
# royalty is hereby granted, provided that you agree to comply with
# the following copyright notice and statements, including the disclaimer,
# and that the same appear on ALL copies of the software, database and
# documentation, including modifications that you make for internal
# use or for distribution.
#
# WordNet 3.0 Copyright 2006 by Princeton University. All rights reserved.
#
# THIS SOFTWARE AND DATABASE IS PROVIDED "AS IS" AND PRINCETON
# UNIVERSITY MAKES NO REPRESENTATIONS OR WARRANTIES, EXPRESS OR
# IMPLIED. BY WAY OF EXAMPLE, BUT NOT LIMITATION, PRINCETON
# UNIVERSITY MAKES NO REPRESENTATIONS OR WARRANTIES OF MERCHANT-
# ABILITY OR FITNESS FOR ANY PARTICULAR PURPOSE OR THAT THE USE
# OF THE LICENSED SOFTWARE, DATABASE OR DOCUMENTATION WILL NOT
# INFRINGE ANY THIRD PARTY PATENTS, COPYRIGHTS, TRADEMARKS OR
# OTHER RIGHTS.
#
# The name of Princeton University or Princeton may not be used in
# advertising or publicity pertaining to distribution of the software
# and/or database. Title to copyright in this software, database and
# any associated documentation shall at all times remain with
# Princeton University and LICENSEE agrees to preserve same.
wnid\tname\thypernyms\tlists
"""


class Record(NamedTuple):
    """One noun synset of WordNet's ``data.noun``."""

    lemmas: tuple[str, ...]
    hypernyms: tuple[str, ...]


def read_database(folder: str | Path) -> dict[str, Record]:
    """Parse ``data.noun`` of a WordNet 3.0 folder (format: the manual page wndb(5WN))."""
    path = Path(folder) / "data.noun"
    if not path.is_file():
        raise CkfrError(f"{folder} holds no WordNet: expected the file data.noun of WordNet 3.0 in it.")
    records: dict[str, Record] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):  # the licence
            continue
        field = line.partition(" | ")[0].split()
        words = int(field[3], 16)
        lemmas = tuple(word.replace("_", " ") for word in field[4 : 4 + 2 * words : 2])
        pointers = field[5 + 2 * words :]
        above = tuple(
            f"n{pointers[i + 1]}"
            for i in range(0, 4 * int(field[4 + 2 * words]), 4)
            if pointers[i] in ("@", "@i")
        )
        records[f"n{field[0]}"] = Record(lemmas, above)
    if "lion" not in records.get("n02129165", Record((), ())).lemmas:
        raise CkfrError(f"{path} is not WordNet 3.0's: offset 02129165 should be the lion.")
    return records


def find_database() -> Path | None:
    """A WordNet 3.0 folder on this machine (``$CKFR_WORDNET``, ours, NLTK's, Debian's), or None."""
    import nltk.data

    places = [Path(os.environ["CKFR_WORDNET"])] if os.environ.get("CKFR_WORDNET") else []
    folders = [data_root() / "wordnet", *map(Path, map(str, nltk.data.path))]
    places += [folder / "corpora" / "wordnet" for folder in folders]
    places.append(Path("/usr/share/wordnet"))
    return next((place for place in places if (place / "data.noun").is_file()), None)


def table(text: str) -> dict[str, str]:
    """``{wnid: name}`` of one of the tables above."""
    words = text.split()
    return dict(zip(words[1::2], words[::2], strict=True))


def timm_list(name: str) -> list[str]:
    """One of the id lists that timm carries."""
    found = importlib.util.find_spec("timm")  # not imported: that would load torch
    if found is None or found.origin is None:
        raise CkfrError("timm is not installed; its lists of ImageNet ids are needed here.")
    return (Path(found.origin).parent / "data" / "_info" / f"{name}_synsets.txt").read_text().split()


def closure(records: dict[str, Record], wnids: Iterable[str]) -> set[str]:
    """The synsets and everything above them."""
    todo, seen = list(wnids), set(wnids)
    while todo:
        for above in records[todo.pop()].hypernyms:
            if above not in seen:
                seen.add(above)
                todo.append(above)
    return seen


def descendants(records: dict[str, Record], roots: Iterable[str]) -> set[str]:
    """Every synset with one of ``roots`` above it."""
    below: dict[str, list[str]] = {}
    for wnid, record in records.items():
        for above in record.hypernyms:
            below.setdefault(above, []).append(wnid)
    todo, seen = list(roots), set(roots)
    while todo:
        for child in below.get(todo.pop(), []):
            if child not in seen:
                seen.add(child)
                todo.append(child)
    return seen


def photo_ids() -> list[str]:
    """WordNet ids of ``data/photos.csv``, whatever its other columns are."""
    with open(DATA / "photos.csv", newline="", encoding="utf-8") as file:
        lines = [line for line in file if not line.startswith("#")]
    return sorted({row["wnid"] for row in csv.DictReader(lines) if row.get("wnid")})


def build(records: dict[str, Record]) -> str:
    """The text of ``data/wordnet.tsv``."""
    lists: dict[str, list[str]] = {}
    for name, ids in {
        "imagenet": timm_list("imagenet"),
        "mini-imagenet": timm_list("mini_imagenet"),
        "tiny-imagenet": TINY_IMAGENET.split(),
    }.items():
        for wnid in ids:
            lists.setdefault(wnid, []).append(name)
    named = {"cifar10": CIFAR10, "cifar100": CIFAR100, "voc2007": VOC2007, "coco": COCO}
    for name, classes in named.items():
        for wnid, own in table(classes).items():
            lists.setdefault(wnid, []).append(f"{name}:{own}")
    wanted = {*timm_list("imagenet22k"), *lists, *photo_ids(), *descendants(records, WHOLE_BRANCHES)}
    unknown = sorted(wanted - records.keys())
    if unknown:
        raise CkfrError(
            f"WordNet 3.0 has no noun {unknown[0]!r}; see the class tables in this file and data/photos.csv."
        )
    rows = [
        "\t".join(
            (wnid, records[wnid].lemmas[0], " ".join(records[wnid].hypernyms), " ".join(lists.get(wnid, [])))
        )
        for wnid in sorted(closure(records, wanted))
    ]
    return HEADER + "\n".join(rows) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--wordnet", type=Path, help="folder with WordNet 3.0's data.noun")
    parser.add_argument(
        "--check", action="store_true", help="compare instead of writing; exit 1 on a difference"
    )
    arguments = parser.parse_args()
    try:
        folder = arguments.wordnet or find_database()
        if folder is None:
            raise CkfrError(
                "No WordNet on this machine; run `ckfr fetch wordnet`, or name its folder with --wordnet."
            )
        text = build(read_database(folder))
    except CkfrError as error:
        print(error, file=sys.stderr)
        return 2
    target = DATA / "wordnet.tsv"
    if arguments.check:
        same = target.read_text(encoding="utf-8") == text
        print(f"{target} {'is' if same else 'is not'} what {folder} gives.")
        return 0 if same else 1
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    rows = text.count("\nn") - 1  # the header line begins with n too
    print(f"{target}: {rows} synsets, {len(text.encode()) / 1000:.0f} kB, from {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
