"""One of the processes of test_distributed_trainers.py: a Trainer of each library on its share of the data.

Run as: trainers_worker.py RANK SIZE FOLDER
"""

from __future__ import annotations

import os
import sys
import warnings
from datetime import timedelta
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch import distributed as dist

SIZE, BATCH, N = 2, 2, 16


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))


def points() -> tuple[Tensor, Tensor]:
    torch.manual_seed(3)
    return torch.randn(N, 3), torch.randint(0, 2, (N,))


def language_model() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    size = {"vocab_size": 17, "n_positions": 8, "n_embd": 8, "n_layer": 1, "n_head": 2}
    return GPT2LMHeadModel(GPT2Config(**size, bos_token_id=0, eos_token_id=0, **dropout))


def texts() -> list[dict[str, Tensor]]:
    torch.manual_seed(3)
    samples = []
    for k in range(N):
        tokens = torch.randint(0, 17, (6,))
        mask = (torch.arange(6) < 2 + k % 5).long()
        labels = tokens.masked_fill(mask == 0, -100)
        samples.append({"input_ids": tokens, "attention_mask": mask, "labels": labels})
    return samples


def lightning(rank: int, folder: str) -> Any:
    import pytorch_lightning as pl
    from torch.utils.data import DataLoader, TensorDataset

    from noisekit.gradients.lightning import GradientNoiseCallback

    class Classifier(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def training_step(self, batch: Any, index: int) -> Tensor:
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    callback = GradientNoiseCallback(schedule=lambda step: step == 0)
    share = [t.unflatten(0, (-1, SIZE, BATCH))[:, rank].flatten(0, 1) for t in points()]
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=SIZE,
        strategy="ddp",
        use_distributed_sampler=False,
        max_epochs=1,
        accumulate_grad_batches=2,
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(Classifier(), DataLoader(TensorDataset(*share), batch_size=BATCH))
    return callback.result()


def huggingface(folder: str) -> Any:
    from transformers import Trainer, TrainingArguments

    from noisekit.gradients.huggingface import GradientNoiseCallback

    callback = GradientNoiseCallback(schedule=lambda step: step == 0)
    arguments = TrainingArguments(
        folder,
        per_device_train_batch_size=BATCH,
        gradient_accumulation_steps=2,
        num_train_epochs=1,
        use_cpu=True,
        ddp_backend="gloo",
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        train_sampling_strategy="sequential",
    )
    trainer = Trainer(language_model(), arguments, train_dataset=texts(), callbacks=[callback])
    trainer.train()
    return callback.result()


def prepare() -> None:
    """Import what both ranks need."""
    warnings.filterwarnings("ignore", "The 'train_dataloader' does not have many workers")
    warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
    import pytorch_lightning
    import transformers

    import noisekit.gradients.huggingface
    import noisekit.gradients.lightning

    _ = pytorch_lightning.Trainer, transformers.Trainer, transformers.GPT2LMHeadModel
    _ = noisekit.gradients.lightning, noisekit.gradients.huggingface


def main() -> None:
    rank, size, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    # What torchrun sets. The libraries take the process group that is there, so no port is needed.
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "NODE_RANK": 0}
    os.environ.update({name: str(value) for name, value in ranks.items()})
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT="1")
    store, limit = f"file://{folder}/store", timedelta(seconds=120)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=size, timeout=limit)
    found = {"lightning": lightning(rank, folder), "huggingface": huggingface(folder)}
    torch.save(found, f"{folder}/rank{rank}.pt")


if __name__ == "__main__":
    main()
