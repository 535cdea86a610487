"""Every space file that is refused: one line with the file, the place, the rule and the value."""

from pathlib import Path

import pytest

from spaces.space import Space

LR = "optimizer.lr: {float: [1e-3, 1.0], log: true, role: nuisance}"
NAME = "optimizer.name: {choice: [sgd, adam], role: scientific}"


def space_text(*parameters: str, head: str = "") -> str:
    return f"question: What?\n{head}\nparameters:\n" + "".join(f"  {line}\n" for line in parameters)


def refusal(text: str) -> str:
    with pytest.raises(ValueError, match=r"^mine\.yaml: ") as error:
        Space.read(text, "mine.yaml", "mine")
    message = str(error.value)
    assert "\n" not in message
    return message.removeprefix("mine.yaml: ")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        # what a parameter's entry may hold
        (
            "{float: [0, 1], role: nuisance, lo: 1}",
            "unknown key 'lo': known are float, int, choice, step, log, "
            "role, when, each (did you mean 'log'?)",
        ),
        ("{role: nuisance}", "needs exactly one of float, int, choice, but got none of them"),
        (
            "{float: [0, 1], int: [0, 1], role: nuisance}",
            "needs exactly one of float, int, choice, but got float, int",
        ),
        ("0.5", "must be a mapping such as {float: [0, 1], role: nuisance}, but got 0.5"),
        # roles
        ("{float: [0, 1]}", "role: must be given, one of scientific, nuisance"),
        (
            "{float: [0, 1], role: nuisanse}",
            "unknown role 'nuisanse': known are scientific, nuisance (did you mean 'nuisance'?)",
        ),
        ("{float: [0, 1], role: fixed}", "unknown role 'fixed': known are scientific, nuisance"),
        # ranges of numbers
        ("{float: [1.0, 0.1], role: nuisance}", "low < high must hold, but got [1.0, 0.1]"),
        ("{float: [0.1, 0.1], role: nuisance}", "low < high must hold, but got [0.1, 0.1]"),
        (
            "{float: [0, 1], log: true, role: nuisance}",
            "low > 0 must hold with log: true, but got [0.0, 1.0]",
        ),
        (
            "{float: [-1, 1], log: true, role: nuisance}",
            "low > 0 must hold with log: true, but got [-1.0, 1.0]",
        ),
        (
            "{float: [0.1, 1], log: true, step: 0.1, role: nuisance}",
            "step: a log range has no steps, but got step=0.1 with log: true",
        ),
        ("{float: [0, 1], step: 0.3, role: nuisance}", "step: must divide the range, but got step=0.3"),
        ("{float: [0, 1], step: 0, role: nuisance}", "step: must be above 0, but got 0.0"),
        ("{float: [0, 1], step: -0.5, role: nuisance}", "step: must be above 0, but got -0.5"),
        ("{float: [0, 1], log: yes, role: nuisance}", "log: must be true or false, but got 'yes'"),
        ("{float: 1, role: nuisance}", "float: must be a list of low and high, but got 1"),
        ("{float: [1], role: nuisance}", "float: must be a list of low and high, but got [1]"),
        ("{float: [0, one], role: nuisance}", "float: must be a number, but got 'one'"),
        ("{float: [0, true], role: nuisance}", "float: must be a number, but got True"),
        ("{float: [0, .inf], role: nuisance}", "float: must be finite, but got inf"),
        ("{float: [.nan, 1], role: nuisance}", "float: must be finite, but got nan"),
        ("{float: [0, 1e999], role: nuisance}", "float: must be finite, but got inf"),
        # ranges of integers
        ("{int: [8, 2], role: nuisance}", "low < high must hold, but got [8, 2]"),
        ("{int: [2, 2], role: nuisance}", "low < high must hold, but got [2, 2]"),
        ("{int: [0, 8], log: true, role: nuisance}", "low > 0 must hold with log: true, but got [0, 8]"),
        ("{int: [1, 8], log: true, step: 1, role: nuisance}", "step: a log range has no steps"),
        ("{int: [0, 8], step: 3, role: nuisance}", "step: must divide the range, but got step=3, int=[0, 8]"),
        ("{int: [0, 8], step: 0, role: nuisance}", "step: must be above 0, but got 0"),
        ("{int: [0, 8.0], role: nuisance}", "int: must be an integer, but got 8.0"),
        ("{int: [0, 8], step: 0.5, role: nuisance}", "step: must be an integer, but got 0.5"),
        ("{int: [0, 99999999999999999999], role: nuisance}", "int: must be within 53 bits"),
        # choices
        ("{choice: [], role: nuisance}", "choice: needs at least two options, but got []"),
        ("{choice: [0.1], role: nuisance}", "choice: needs at least two options, but got [0.1]"),
        ("{choice: {one: 0.1}, role: nuisance}", "choice: needs at least two options, but got ['one']"),
        ("{choice: [0.1, 0.2, 0.1], role: nuisance}", "choice: no option may come twice, but got 0.1 again"),
        (
            "{choice: {one: 0.1, two: 0.1}, role: nuisance}",
            "choice: no option may come twice, but got 0.1 again",
        ),
        ("{choice: 0.1, role: nuisance}", "choice: must be a list or a mapping of names, but got 0.1"),
        (
            "{choice: [[1], [2]], role: nuisance}",
            "choice: an option must be text, a number, true or false, but got [1]; give other values names: ",
        ),
        (
            "{choice: [0.1, null], role: nuisance}",
            "choice: an option must be text, a number, true or false, but got None",
        ),
        ("{choice: [0.1, .inf], role: nuisance}", "choice: must be finite, but got inf"),
        (
            "{choice: {1: 0.1, 2: 0.2}, role: nuisance}",
            "choice: a name must be text (in quotes if need be), but got 1",
        ),
        ("{choice: [0.1, 0.2], step: 0.1, role: nuisance}", "step: a choice has none, but got step=0.1"),
        ("{choice: [0.1, 0.2], log: true, role: nuisance}", "log: a choice has none, but got log=True"),
        # conditions
        (
            "{float: [0.1, 1], role: nuisance, when: sgd}",
            "when: must be a mapping of parameter to option or options, but got 'sgd'",
        ),
        (
            "{float: [0.1, 1], role: nuisance, when: {optimizer.nam: sgd}}",
            "when: unknown parameter "
            "'optimizer.nam': known are optimizer.name, optimizer.lr (did you mean 'optimizer.name'?)",
        ),
        (
            "{float: [0.1, 1], role: nuisance, when: {optimizer.name: sdg}}",
            "when: optimizer.name: unknown choice 'sdg': known are sgd, adam (did you mean 'sgd'?)",
        ),
        (
            "{float: [0.1, 1], role: nuisance, when: {optimizer.name: [sgd, 1]}}",
            "when: optimizer.name: unknown choice 1: known are sgd, adam",
        ),
        (
            "{float: [0.1, 1], role: nuisance, when: {optimizer.name: []}}",
            "when: optimizer.name: needs at least one option, but got []",
        ),
        (
            "{float: [0.1, 1], role: nuisance, when: {optimizer.lr: 0.5}}",
            "when: must refer to a choice, but got optimizer.lr, which is uniform 0.1 to 1",
        ),
        ("{float: [0.1, 1], role: nuisance, each: optimizer.nam}", "each: unknown parameter 'optimizer.nam'"),
        ("{float: [0.1, 1], role: nuisance, each: optimizer.lr}", "each: must refer to a choice"),
        ("{float: [0.1, 1], role: nuisance, each: 5}", "each: must name a choice"),
        (
            "{float: [0.1, 1], role: nuisance, each: optimizer.name, when: {optimizer.name: x}}",
            "when: optimizer.name: unknown choice 'x'",
        ),
    ],
)
def test_a_parameter_that_is_refused(spec: str, message: str) -> None:
    text = space_text(NAME, f"optimizer.lr: {spec}")
    assert refusal(text).startswith(f"parameters.optimizer.lr: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a mapping with question, base and parameters, but got None"),
        ("- 1", "must be a mapping with question, base and parameters, but got [1]"),
        (
            space_text(LR, head="sampler: tpe"),
            "unknown key 'sampler': known are question, command, cost, result, "
            "base, balance, pruning_warmup, first, together, parameters",
        ),
        (space_text(LR, head="balanced: x"), "unknown key 'balanced': "),
        (f"parameters: {{{LR}}}", "question: must be given: one sentence that the search answers"),
        (f"question: 5\nparameters: {{{LR}}}", "question: must be text, but got 5"),
        (space_text(LR, head="cost: [1]"), "cost: must be text, but got [1]"),
        ("question: What?", "parameters: must be a mapping of at least one parameter, but got None"),
        (
            "question: What?\nparameters: {}",
            "parameters: must be a mapping of at least one parameter, but got {}",
        ),
        (
            "question: What?\nparameters: [lr]",
            "parameters: must be a mapping of at least one parameter, but got",
        ),
        (space_text(LR, LR), "line 5: duplicate key 'optimizer.lr'"),
        (space_text(LR, head="base: &b {}"), "line 2: anchors and aliases are not allowed"),
        (space_text(LR, head="base: 5"), "base: must be a mapping of names to values"),
        (space_text(LR, head="base:"), "base: must be a mapping of names to values"),
        (
            space_text(LR, head="base: {training: {epoch: 3}}"),
            "base: training.epoch: unknown setting 'epoch': known",
        ),
        (
            space_text(LR, head="base: {training: {epochs: 0}}"),
            "base: training.epochs: input should be greater than or equal to 1, but got 0",
        ),
        (
            space_text(LR, head="pruning_warmup: 1.5"),
            "pruning_warmup: must be a share of the epochs, from 0 to 1, but got 1.5",
        ),
        (
            space_text(LR, head="pruning_warmup: half"),
            "pruning_warmup: must be a share of the epochs, from 0 to 1, but got 'half'",
        ),
        (space_text(LR, head="pruning_warmup: true"), "pruning_warmup: must be a share"),
        (space_text(LR, head="pruning_warmup: .nan"), "pruning_warmup: must be a share"),
        (
            space_text("'@x': {float: [0, 1], role: nuisance}"),
            "parameters.@x: a name must be a dotted path, or path@label, but got '@x'",
        ),
        (
            space_text("optimizer.lr@: {float: [0, 1], role: nuisance}"),
            "parameters.optimizer.lr@: a name must be",
        ),
        (space_text("5: {float: [0, 1], role: nuisance}"), "parameters.5: a name must be"),
        # paths
        (
            space_text("optimizer.lrr: {float: [0.1, 1], role: nuisance}"),
            "parameters.optimizer.lrr: with "
            "optimizer.lrr=0.1: configuration: optimizer.lrr: unknown setting 'lrr': known are lr, ",
        ),
        (
            space_text("optimzer.lr: {float: [0.1, 1], role: nuisance}"),
            "parameters.optimzer.lr: with "
            "optimzer.lr=0.1: configuration: optimzer: unknown setting 'optimzer'",
        ),
        (space_text("model.widths.0: {int: [1, 2], role: nuisance}"), "parameters.model.widths.0: with"),
        # balance
        (
            space_text(LR, head="balance: optimizer.lr"),
            "balance: must be a scientific choice without conditions, "
            "but got optimizer.lr, which is nuisance: log-uniform 0.001 to 1",
        ),
        (
            space_text(LR, head="balance: optimizer.name"),
            "balance: unknown parameter 'optimizer.name': known are optimizer.lr",
        ),
        (
            space_text(
                "optimizer.name: {choice: [sgd, adam], role: nuisance}", head="balance: optimizer.name"
            ),
            "balance: must be a scientific choice without conditions, but got optimizer.name, which is nuis",
        ),
        (
            space_text(
                NAME,
                "model.order: {choice: [norm, neither], role: scientific, when: {optimizer.name: sgd}}",
                head="balance: model.order",
            ),
            "balance: must be a scientific choice without conditions",
        ),
        (
            space_text(NAME, head="balance: [optimizer.name]"),
            "balance: must be the name of a parameter, but got",
        ),
        # first
        (
            space_text(LR, head="first: {optimizer.lr: 0.1}"),
            "first: must be a list of mappings of parameters to values, but got {'optimizer.lr': 0.1}",
        ),
        (space_text(LR, head="first: [0.1]"), "first: must be a list of mappings"),
        (space_text(LR, head="first: [{}]"), "first: must be a list of mappings"),
        (
            space_text(LR, head="first: [{optimizer.lr: 0.1}, {optimizer.l: 0.1}]"),
            "first.1: unknown parameter 'optimizer.l': known are optimizer.lr",
        ),
        (
            space_text(LR, head="first: [{optimizer.lr: 2}]"),
            "first.0: optimizer.lr: must be from 0.001 to 1, but got 2",
        ),
        (
            space_text(
                NAME,
                "optimizer.lr: {float: [0.1, 1], role: nuisance, each: optimizer.name}",
                head="first: [{optimizer.name: sgd, optimizer.lr@adam: 0.1}]",
            ),
            "first.0: optimizer.lr@adam: is active only where optimizer.name is adam",
        ),
        (
            space_text(
                NAME,
                "optimizer.lr: {float: [0.1, 1], role: nuisance, each: optimizer.name}",
                head="first: [{optimizer.lr@adam: 0.1}]",
            ),
            "first.0: optimizer.lr@adam: is active only where optimizer.name is adam",
        ),
    ],
)
def test_a_file_that_is_refused(text: str, message: str) -> None:
    assert refusal(text).startswith(message)


def test_conditions_on_a_cycle() -> None:
    order = "{choice: [norm, neither], role: scientific, when: {optimizer.name: sgd}}"
    text = space_text(
        "optimizer.name: {choice: [sgd, adam], role: scientific, when: {data.scaling: unit}}",
        "data.scaling: {choice: [unit, imagenet], role: scientific, when: {model.order: norm}}",
        f"model.order: {order}",
        f"model.activation: {order.replace('norm, neither', 'relu, tanh')}",
    )
    assert refusal(text) == (
        "parameters.optimizer.name: when: conditions must not form a cycle, but got "
        "optimizer.name -> data.scaling -> model.order -> optimizer.name"
    )


def test_a_condition_on_itself() -> None:
    text = space_text("optimizer.name: {choice: [sgd, adam], role: scientific, when: {optimizer.name: sgd}}")
    assert "cycle, but got optimizer.name -> optimizer.name" in refusal(text)


def test_two_parameters_of_one_setting_that_can_be_active_together() -> None:
    text = space_text(
        NAME,
        "optimizer.lr@sgd: {float: [0.1, 1], role: nuisance, when: {optimizer.name: sgd}}",
        "optimizer.lr@any: {float: [0.1, 1], role: nuisance, when: {optimizer.name: [sgd, adam]}}",
    )
    assert refusal(text) == (
        "parameters.optimizer.lr@any: varies the same setting as optimizer.lr@sgd, so that their conditions "
        "must exclude each other, but got optimizer.name is sgd or adam and optimizer.name is sgd"
    )


def test_conditions_of_parents_count_when_two_parameters_exclude_each_other() -> None:
    text = space_text(
        NAME,
        "model.order: {choice: [norm, neither], role: scientific, when: {optimizer.name: adam}}",
        "optimizer.lr@sgd: {float: [0.1, 1], role: nuisance, when: {optimizer.name: sgd}}",
        "optimizer.lr@norm: {float: [0.1, 1], role: nuisance, when: {model.order: norm}}",
    )
    assert len(Space.read(text, "mine.yaml", "mine").parameters) == 4


def test_a_parameter_that_can_never_be_active() -> None:
    text = space_text(
        NAME,
        "model.order: {choice: [norm, neither], role: scientific, when: {optimizer.name: adam}}",
        "model.dropout: {float: [0, 0.5], role: scientific, when: {model.order: norm, optimizer.name: sgd}}",
    )
    assert refusal(text).startswith(
        "parameters.model.dropout: when: can never be active: its conditions on optimizer.name exclude"
    )


def test_a_name_that_each_makes_again() -> None:
    text = space_text(
        NAME,
        "optimizer.lr: {float: [0.1, 1], role: nuisance, each: optimizer.name}",
        "optimizer.lr@sgd: {float: [0.1, 1], role: nuisance, when: {optimizer.name: sgd}}",
    )
    assert refusal(text) == "parameters.optimizer.lr@sgd: declared twice"


def test_a_bound_that_makes_no_valid_configuration() -> None:
    text = space_text("optimizer.momentum: {float: [0.0, 0.99], role: nuisance}")
    assert refusal(text) == (
        "parameters.optimizer.momentum: with optimizer.momentum=0: configuration: "
        "optimizer: nesterov needs momentum > 0, but got momentum=0.0"
    )


def test_a_setting_that_the_other_variant_lacks() -> None:
    text = space_text(NAME, "optimizer.momentum: {float: [0.5, 0.99], role: nuisance}")
    assert refusal(text).startswith("parameters.optimizer.name: with optimizer.name=adam: configuration: "
                                    "optimizer.momentum: unknown setting 'momentum'")  # fmt: skip


def test_an_option_that_is_no_value_of_its_setting() -> None:
    text = space_text("model.normalization: {choice: [batch, bach], role: scientific}")
    assert refusal(text).startswith(
        "parameters.model.normalization: with model.normalization=bach: configuration: "
    )


def test_two_options_that_are_valid_alone_but_not_together() -> None:
    text = space_text(
        "model.normalization: {choice: [batch, group], role: scientific}",
        "model.widths: {choice: {even: [32, 64], odd: [33, 65]}, role: scientific}",
        "data.scaling: {choice: [unit, imagenet], role: scientific}",
    )
    assert refusal(text) == (
        "parameters.model.normalization: with model.normalization=group, model.widths=odd: configuration: "
        "model: groups must divide every width, but got groups=8, widths=(33, 65)"
    )


def test_three_options_that_are_valid_in_pairs_only_name_all_three() -> None:
    text = space_text(
        "model.normalization: {choice: [batch, group], role: scientific}",
        "model.groups: {choice: [8, 7], role: scientific}",
        "model.widths: {choice: {even: [56, 112], odd: [8, 16]}, role: scientific}",
        "data.scaling: {choice: [unit, imagenet], role: scientific}",
        head="base: {data: {scaling: unit}}",
    )
    message = refusal(text)
    assert "model.normalization=group" in message
    assert "groups must divide every width, but got groups=7, widths=(8, 16)" in message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("regularisation", "unknown space 'regularisation': known are "),
        ("regularisation", "(did you mean 'regularization'?)"),
        ("missing.yaml", "missing.yaml: cannot be read: No such file or directory"),
        ("some/folder", "some/folder: cannot be read: No such file or directory"),
        ("/", "/: cannot be read: Is a directory"),
        ("", "unknown space '': known are "),
    ],
)
def test_a_space_that_cannot_be_found(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        Space.load(name)
    assert message in str(error.value)


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    file = tmp_path / "binary.yaml"
    file.write_bytes(b"question: \xff\xfe")
    with pytest.raises(ValueError, match=r"binary\.yaml: must be UTF-8 text, but byte 10 is not"):
        Space.load(str(file))
