import tiny

from rediffuse import train
from rediffuse.callbacks.progress import Display

METRICS = {
    "epoch": 0, "reward_mean": 1.0, "reward_std": 0.5, "images_per_second": 3.0, "approx_kl": 0.0, "masked_rewards": 0,
    "skipped_updates": 0, "ratio_drift": 0.0, "trained_samples": 8,
}  # fmt: skip


def shown(capsys, **over):
    display = Display(2, shown=True)
    with display:
        display.epoch_done({**METRICS, "max_ratio_drift": 1e-5, **over})
    return " ".join(capsys.readouterr().out.split())


def test_an_epoch_is_a_line(capsys):
    said = shown(capsys)
    assert "reward 1.0000 ± 0.5000" in said
    assert "ratio" not in said


def test_rewards_of_any_size_are_told_apart_in_few_letters(capsys):
    assert "reward 4.896e-31 ± 3.456e-32" in shown(
        capsys, reward_mean=4.8962e-31, reward_std=3.4557e-32
    )
    assert "reward 4.896e+29 ± 3.456e+28" in shown(
        capsys, reward_mean=4.8962e29, reward_std=3.4557e28
    )
    assert "reward 0.0000 ± 0.0000" in shown(capsys, reward_mean=0.0, reward_std=0.0)
    assert "reward 0.0000 ± 0.5000" in shown(capsys, reward_mean=1e-9, reward_std=0.5)


def test_a_ratio_that_drifts_says_what_to_change(capsys):
    said = shown(capsys, ratio_drift=2e-5)
    assert "deviates by 2.0e-05" in said
    assert "--model.precision fp32" in said


def test_masked_rewards_and_skipped_updates_are_told(capsys):
    said = shown(capsys, masked_rewards=3, skipped_updates=1)
    assert "3 rewards masked" in said
    assert "1 updates skipped" in said


def test_only_one_process_speaks(capsys):
    display = Display(2, shown=False)
    with display:
        display.epoch_done(METRICS)
    assert not capsys.readouterr().out.strip()


def test_the_time_left_is_told_however_long_an_epoch_lasts():
    display, now = Display(5, shown=False), [0.0]
    task = display._progress.tasks[0]
    task._get_time = display._progress.get_time = lambda: now[0]
    display._progress.start_task(task.id)
    for _ in range(3):
        now[0] += 40
        display.epoch_done(METRICS)
    assert task.time_remaining == 80


def test_of_a_normalised_sum_the_means_of_its_terms_are_printed(tmp_path, capsys):
    train(tiny.config(rewards=["redness", "jpeg_compressibility"], epochs=1), tmp_path / "run")
    line = next(each for each in capsys.readouterr().out.splitlines() if each.startswith("epoch"))
    row = tiny.numbers(tmp_path / "run")[0]
    assert f"redness {row['reward_redness']:.4f}" in line and "reward 0" not in line
    assert f"jpeg_compressibility {row['reward_jpeg_compressibility']:.4f}" in line
