"""What the folders of a tree of images mean, and what is passed over."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from sslfast.data import load_images, located, tree
from sslfast.data.layout import understand
from sslfast.data.paths import Paths


def write(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (value % 256, value // 256, 7)).save(path)


def fill(root: Path, *folders: str, count: int = 5) -> None:
    """`count` different images in each folder."""
    for f, folder in enumerate(folders):
        for i in range(count):
            write(root / folder / f"{i}.png", count * f + i)


def sizes(root: Path) -> tuple[list[str], int, int | None]:
    """The classes, and how many images are in each split."""
    train = load_images(f"folder:{root}", "train")
    if not (train.labelled or any("test images" in note for note in train.notes)):
        with pytest.raises(ValueError, match="has no labels and no test split"):
            load_images(f"folder:{root}", "test")
        return train.classes, len(train), None
    test = len(load_images(f"folder:{root}", "test"))
    return train.classes, len(train), test


@pytest.mark.parametrize(
    ("folders", "found"),
    [
        (["."], ([], 5, None)),
        (["photos"], ([], 5, None)),
        (["2021/05", "2021/06", "2022"], ([], 15, None)),
        (["2021-05-01", "20220601"], ([], 10, None)),
        (["100CANON", "101CANON"], ([], 10, None)),
        ([".", "cats"], ([], 10, None)),
        (["0", "1"], (["0", "1"], 8, 2)),
        (["cat/2021", "cat/2022", "dog"], (["cat", "dog"], 12, 3)),
        (["archive/cat", "archive/dog"], (["cat", "dog"], 8, 2)),
        (["train/cat", "train/dog"], (["cat", "dog"], 8, 2)),
        (["Training/cat", "Training/dog", "Testing/cat"], (["cat", "dog"], 10, 5)),
        (["TRAIN/cat", "TRAIN/dog", "Validation/cat", "Validation/dog"], (["cat", "dog"], 10, 10)),
        (["seg_train/seg_train/sea", "seg_train/seg_train/ice", "seg_test/seg_test/ice", "seg_pred"],
         (["ice", "sea"], 10, 5)),
        (["train/cat", "train/dog", "test", "val/cat", "val/dog"], (["cat", "dog"], 10, 10)),
        (["train/cat", "train/dog", "test"], (["cat", "dog"], 8, 2)),
        (["train", "valid"], ([], 5, 5)),
        (["car", "bus", "train"], (["bus", "car", "train"], 12, 3)),
        (["car", "test", "train"], (["car", "test", "train"], 12, 3)),
    ],
)  # fmt: skip
def test_layouts(tmp_path: Path, folders: list[str], found: tuple[list[str], int, int | None]) -> None:
    fill(tmp_path, *folders)
    assert sizes(tmp_path) == found


def test_what_was_understood_is_said(tmp_path: Path) -> None:
    fill(tmp_path, "train/ant", "train/bee", "train/cow", "train/dog", "val/ant", "extra")
    for name in ("labels.csv", "train/ant/0.xml", "train/ant/1.xml", "Thumbs.db", ".DS_Store", "__MACOSX/._0.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\0")
    assert load_images(f"folder:{tmp_path}", "train").notes == (
        f"{tmp_path}: 20 training and 5 test images; 4 classes (ant, bee, cow, …)",
        "left out: extra/ with 5 images",
        "passed over: 2 .xml, 2 hidden, 1 .csv, 1 .db",
        "sources of 8 x 8 px, uint8, 3 channels",
    )


def test_run_folders_are_passed_over(tmp_path: Path) -> None:
    fill(tmp_path, ".")
    run = tmp_path / "runs" / "simclr"
    fill(run, ".")
    for name in ("config.json", "metrics.jsonl", "environment.json"):
        (run / name).write_text("{}")
    images = load_images(f"folder:{tmp_path}", "train")
    assert len(images) == 5
    assert "passed over: 1 run folder" in images.notes


def test_a_folder_of_other_files_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"\0")
    with pytest.raises(ValueError, match=r"has no images; passed over: 1 \.heic"):
        load_images(f"folder:{tmp_path}", "train")


def test_every_real_directory_counts_once(tmp_path: Path) -> None:
    fill(tmp_path, "cat", "dog")
    (tmp_path / "cat" / "loop").symlink_to(tmp_path)
    (tmp_path / "a-link").symlink_to(tmp_path / "dog")
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    write(elsewhere / "0.png", 77)
    (tmp_path / "cat" / "more").symlink_to(elsewhere)
    assert sizes(tmp_path) == (["cat", "dog"], 9, 2)


def test_copies_stay_on_one_side_of_our_own_split(tmp_path: Path) -> None:
    for name, shift in (("cat", 0), ("dog", 1000)):
        for i in range(50):
            write(tmp_path / name / f"{i:02}.png", shift + i // 5)  # five of each
    write(tmp_path / "dog" / "a cat.png", 0)
    train, test = (load_images(f"folder:{tmp_path}", split) for split in ("train", "test"))
    seen = {tuple(image.flatten().tolist()) for image in train.images}
    assert not any(tuple(image.flatten().tolist()) in seen for image in test.images)
    assert len(train) + len(test) == 101
    assert 16 <= len(test) <= 22
    assert "81 files are copies of another one, and on its side" in train.notes


def test_a_large_listing_is_kept_until_a_directory_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(tree, "LARGE", 10)
    folder = tmp_path / "images"
    fill(folder, "cat", "dog", "elk")
    first = tree.list_tree(folder)
    walks = []
    walk = tree._walk
    monkeypatch.setattr(tree, "_walk", lambda root: walks.append(root) or walk(root))
    assert tree.list_tree(folder) == first
    assert not walks
    write(folder / "dog" / "new.png")
    assert len(tree.list_tree(folder).images) == len(first.images) + 1
    (tmp_path / "cache").chmod(0o500)
    for kept in (tmp_path / "cache").iterdir():
        kept.write_text("{")
    assert len(tree.list_tree(folder).images) == len(first.images) + 1  # damaged: listed again


def test_a_bare_path_is_answered_with_the_name_it_was_meant_to_have(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"did you mean folder:{tmp_path}"):
        load_images(str(tmp_path), "train")


def test_home_and_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "pictures", ".")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert len(load_images("folder:~/pictures", "train")) == 5
    assert located("folder:~/pictures") == located("folder:pictures") == f"folder:{tmp_path}/pictures"
    assert located("text:a.txt") == f"text:{tmp_path}/a.txt"
    assert [located(name) for name in ("digits", "folder:", "a:b")] == ["digits", "folder:", "a:b"]


def test_nobody_has_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "LARGE", 5)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda user: {}[user])  # a container's user without a name
    fill(tmp_path, ".")
    monkeypatch.chdir(tmp_path)
    assert len(load_images("folder:.", "train")) == 5
    assert not (tmp_path / "~").exists()
    for name in ("folder:~/pictures", "~/pictures", "wds:~/shards", "folder:~nobody-of-this-name/pictures"):
        with pytest.raises(ValueError, match=r"there (is|are) no|data must be one of"):
            load_images(name, "train")


def test_paths_keep_names_that_are_not_utf8(tmp_path: Path) -> None:
    names = ["a.png", "b/猫.png", os.fsdecode(b"\xff\xfe.png"), ""]
    paths = Paths(tmp_path, names)
    assert [str(path) for path in paths] == [str(tmp_path / name) for name in names]
    assert paths[-2] == tmp_path / names[-2]
    with pytest.raises(IndexError):
        paths[4]


def test_an_unknown_class_in_the_test_split_is_named() -> None:
    with pytest.raises(ValueError, match="test/ has classes that train/ has not: cow"):
        understand(["train/ant/0.png", "train/bee/0.png", "test/cow/0.png", "test/ant/0.png"])
