import math

from made_up import metrics_row, reward_row

from rediffuse.report import tables


def test_figures():
    metrics = [metrics_row(0, reward_mean=1.0), metrics_row(1, reward_mean=2.5)]
    said = {figure.words: figure.value for figure in tables.figures(metrics, 2)}
    assert said["mean reward, first and last epoch"] == "1 → 2.50"
    assert said["change, in standard deviations of the first epoch's samples"] == "+3"
    assert said["epochs of training"] == "2" and said["of sampling, scoring and training"] == "38 s"
    assert {figure.value for figure in tables.figures(metrics, 9)} >= {"2 of 9"}


def test_masked_rewards_are_counted_by_what_became_of_them():
    first = metrics_row(0, masked_rewards=3, masked_timeout=1, masked_non_finite=2)
    metrics = [first, metrics_row(1, masked_rewards=4, masked_timeout=4)]
    assert tables.masked(metrics) == {"timeout": 5, "non_finite": 2}
    figure = tables.figures(metrics, 2)[-1]
    assert (figure.value, figure.words) == (
        "7",
        "rewards missing and left out: 5 timeout, 2 non finite",
    )


def test_a_row_per_prompt_by_hand():
    rows = [reward_row(epoch, 0, "a cat", reward=float(epoch)) for epoch in range(8)]
    rows += [
        reward_row(0, 1, "a dog", reward=1.0),
        reward_row(7, 1, "a dog", reward=5.0),
        reward_row(7, 2, "a dog", reward=None),
    ]
    rows += [reward_row(7, 3, "an owl", notes={"answer": "a bat"})]
    table = tables.per_prompt(rows)
    assert (table.epochs, table.left_out) == (2, 1)
    cat, dog = table.rows  # gains of 6 and 4
    assert (cat.prompt, cat.before, cat.after, cat.change, cat.n) == ("a cat", 0.5, 6.5, 6, 8)
    assert (dog.before, dog.after, dog.n) == (1, 5, 2)


def test_of_many_prompts_the_greatest_gains_and_losses_are_shown():
    rows = [
        reward_row(epoch, i, f"prompt {i}", reward=float(epoch * i))
        for epoch in range(2)
        for i in range(300)
    ]
    table = tables.per_prompt(rows)
    assert len(table.rows) == tables.MOST_PROMPTS and table.left_out == 200
    assert table.rows[0].change == 299 and table.rows[-1].change == 0


def test_values_are_told_apart_by_as_many_decimals_as_that_takes():
    def places(value):
        return tables.PromptTable([tables.PromptRow("", 0.0, value, 1, "")], 1, 0).places

    assert [places(value) for value in (0.0, 5.7, 57.0, 5700.0, 0.004)] == [2, 2, 1, 0, 5]


def test_no_reward_at_all():
    assert tables.per_prompt([]).rows == []
    assert math.isnan(tables._prompt_row("", [reward_row(0, 0, "", reward=None)], {0}, {0}).before)
