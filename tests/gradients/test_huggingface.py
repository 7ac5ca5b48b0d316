"""The Hugging Face callback records what the plain loop would, and changes nothing in the training."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainingArguments,
)

from noisekit.errors import InputError
from noisekit.gradients import GradientRecord, every
from noisekit.gradients.huggingface import GradientNoiseCallback

pytestmark = pytest.mark.slow
BATCH, LENGTH = 2, 6
SMALL_BERT = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}


def gpt() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    none = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    config = GPT2Config(
        vocab_size=17, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0, **none
    )
    return GPT2LMHeadModel(config)


def bert(**options: Any) -> BertForSequenceClassification:
    torch.manual_seed(0)
    config = BertConfig(vocab_size=17, max_position_embeddings=8, num_labels=3, **{**SMALL_BERT, **options})
    return BertForSequenceClassification(config)


NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def texts(n: int) -> list[dict[str, Tensor]]:
    """Sequences of different lengths: what is beyond their end is masked and its labels are ignored."""
    torch.manual_seed(3)
    samples = []
    for k in range(n):
        tokens, length = torch.randint(0, 17, (LENGTH,)), 2 + k % 5
        mask = (torch.arange(LENGTH) < length).long()
        samples.append(
            {"input_ids": tokens, "attention_mask": mask, "labels": tokens.masked_fill(mask == 0, -100)}
        )
    return samples


def labelled(n: int) -> list[dict[str, Tensor]]:
    return [
        {**{name: t for name, t in sample.items() if name != "labels"}, "labels": torch.tensor(k % 3)}
        for k, sample in enumerate(texts(n))
    ]


def train(
    model: Any, samples: list[Any], folder: Path, callback: GradientNoiseCallback | None, **options: Any
) -> Trainer:
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=BATCH,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        train_sampling_strategy="sequential",
        **{"num_train_epochs": 1, "learning_rate": 0.01, **options},
    )
    trainer = Trainer(
        model, arguments, train_dataset=samples, callbacks=[] if callback is None else [callback]
    )
    trainer.train()
    return trainer


def by_hand(model: nn.Module, samples: list[dict[str, Tensor]], items: int | None = None) -> Tensor:
    """N times what each sample adds to the gradient of a step with these samples.

    A language model sums over the labels that follow a token and divides by the ``items`` of the Trainer.
    """
    rows = []
    for sample in samples:
        batch = {name: t.unsqueeze(0) for name, t in sample.items()}
        loss = model(**batch).loss
        if items is not None:
            loss = loss * int((sample["labels"][1:] != -100).sum()) * len(samples) / items
        gradients = torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad])
        rows.append(torch.cat([g.flatten() for g in gradients]))
    return torch.stack(rows)


def assert_is_record_of(record: GradientRecord, row: int, rows: Tensor) -> None:
    assert record.gram is not None
    assert torch.allclose(record.squared_norm[row], rows.square().sum(1), rtol=1e-4)
    gram = rows @ rows.T
    assert float((record.gram[row] - gram).abs().max()) < 1e-4 * float(gram.abs().max())
    assert float(record.trace[row].sum()) == pytest.approx(float(rows.var(0).sum()), rel=1e-4)
    assert float(record.gradient_norm[row]) == pytest.approx(float(rows.mean(0).norm()), rel=1e-4)


@pytest.mark.parametrize("accumulated", [1, 3])
def test_language_model(tmp_path: Path, accumulated: int) -> None:
    model, samples = gpt(), texts(12)
    before, plain = copy.deepcopy(model).eval(), copy.deepcopy(model)
    callback = GradientNoiseCallback(schedule=every(2), sketch=8)
    trainer = train(model, samples, tmp_path, callback, gradient_accumulation_steps=accumulated)
    train(plain, samples, tmp_path, None, gradient_accumulation_steps=accumulated)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    record = callback.result()
    n = BATCH * accumulated
    assert record.batch_size == n
    assert record.coverage == 1
    assert record.step.tolist() == list(range(0, 12 // n, 2))
    batch = {name: torch.stack([s[name] for s in samples[:n]]) for name in samples[0]}
    items = trainer._get_num_items_in_batch([batch], torch.device("cpu"))
    assert_is_record_of(record, 0, by_hand(before, samples[:n], int(items)))
    loss = before(**batch, num_items_in_batch=items).loss
    assert float(record.loss[0]) == pytest.approx(float(loss.detach()), rel=1e-5)


@pytest.mark.parametrize("accumulated", [1, 2])
def test_classifier_whose_loss_ignores_the_number_of_labels(tmp_path: Path, accumulated: int) -> None:
    model, samples = bert(**NO_DROPOUT), labelled(8)
    before = copy.deepcopy(model).eval()
    callback = GradientNoiseCallback(schedule=every(10))
    train(model, samples, tmp_path, callback, gradient_accumulation_steps=accumulated)
    n = BATCH * accumulated
    assert_is_record_of(callback.result(), 0, by_hand(before, samples[:n]))


def test_dropout_is_that_of_the_training_step(tmp_path: Path) -> None:
    model = bert()
    gradients: list[Tensor] = []

    class Spy(Trainer):
        def training_step(self, model: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
            loss = super().training_step(model, *args, **kwargs)
            gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
            return loss

    callback = GradientNoiseCallback(schedule=every(1))
    arguments = TrainingArguments(
        str(tmp_path),
        per_device_train_batch_size=4,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        num_train_epochs=1,
        max_grad_norm=0.0,
    )
    Spy(model, arguments, train_dataset=labelled(8), callbacks=[callback]).train()
    record = callback.result()
    for row, gradient in enumerate(gradients):
        assert float(record.gradient_norm[row]) == pytest.approx(float(gradient.norm()), rel=1e-4)


def own_loss(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    return F.cross_entropy(outputs["logits"], labels, label_smoothing=0.1)


def test_a_loss_of_the_user(tmp_path: Path) -> None:
    model, samples = bert(**NO_DROPOUT), labelled(4)
    before = copy.deepcopy(model).eval()
    callback = GradientNoiseCallback(own_loss, schedule=every(1))
    arguments = TrainingArguments(
        str(tmp_path),
        per_device_train_batch_size=4,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        num_train_epochs=1,
        train_sampling_strategy="sequential",
    )
    Trainer(model, arguments, train_dataset=samples, callbacks=[callback], compute_loss_func=own_loss).train()
    rows = []
    for sample in samples:
        batch = {name: t.unsqueeze(0) for name, t in sample.items()}
        labels = batch.pop("labels")
        loss = own_loss(before(**batch), labels)
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(before.parameters()))]))
    assert_is_record_of(callback.result(), 0, torch.stack(rows))


def test_numbers_are_in_the_log(tmp_path: Path) -> None:
    seen: list[dict[str, float]] = []
    callback = GradientNoiseCallback(schedule=every(2), on_record=seen.append)
    trainer = train(gpt(), texts(8), tmp_path, callback, logging_steps=2)
    assert [row["step"] for row in seen] == [0, 2]
    logged = [row for row in trainer.state.log_history if "noise/noise_trace" in row]
    assert [row["noise/noise_trace"] for row in logged] == [row["noise_trace"] for row in seen]


def test_bf16(tmp_path: Path) -> None:
    model, samples = gpt(), texts(2)
    before = copy.deepcopy(model).eval()
    callback = GradientNoiseCallback(schedule=every(1))
    trainer = train(model, samples, tmp_path, callback, bf16=True)
    batch = {name: torch.stack([s[name] for s in samples]) for name in samples[0]}
    rows = by_hand(before, samples, int(trainer._get_num_items_in_batch([batch], torch.device("cpu"))))
    assert torch.allclose(callback.result().squared_norm[0], rows.square().sum(1), rtol=0.05)


def test_what_cannot_be_recorded_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"label_smoothing_factor=0\.1"):
        train(bert(), labelled(4), tmp_path, GradientNoiseCallback(), label_smoothing_factor=0.1)
    callback = GradientNoiseCallback()
    with pytest.raises(InputError, match=r"call trainer\.train"):
        callback.result()


def test_training_again_after_an_exception(tmp_path: Path) -> None:
    model, samples = gpt(), texts(4)
    callback = GradientNoiseCallback(schedule=every(1))

    class Broken(list[Any]):
        def __getitem__(self, index: Any) -> Any:
            if index == 3:
                raise KeyError
            return super().__getitem__(index)

    with pytest.raises(KeyError):
        train(model, Broken(samples), tmp_path, callback)
    train(model, samples, tmp_path, callback)
    assert callback.result().step.tolist() == [0, 1]
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "noisekit.gradients.huggingface")
    with pytest.raises(InputError, match=r"pip install 'noisekit\[huggingface\]'"):
        import noisekit.gradients.huggingface  # noqa: F401
