"""Record the gradient noise of an ordinary training loop, and see how it changes while the network learns."""

import matplotlib.pyplot as plt
import torch

import noisekit as nk
from noisekit.plots import theme

PROBLEM = "digits-mlp"  # 1437 images of 8 × 8 pixels, a network of 2410 parameters
BATCH_SIZE = 64
LEARNING_RATE = 0.1
STEPS = 300
RECORD_EVERY = 10  # steps between recorded batches
FIGURE = "docs/gallery/01_record_your_training.png"

torch.manual_seed(0)
problem = nk.load_problem(PROBLEM)
model, loss_fn = problem.model, problem.loss_fn
optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)

with nk.GradientNoiseRecorder(model, loss_fn, optimizer, schedule=nk.every(RECORD_EVERY)) as recorder:
    for _ in range(STEPS):  # this loop knows nothing of the recorder
        index = torch.randint(problem.n_samples, (BATCH_SIZE,))
        optimizer.zero_grad()
        loss_fn(model(problem.inputs[index]), problem.targets[index]).backward()
        optimizer.step()
record = recorder.result()
print(nk.analyze(record))

tree = nk.to_datatree(record=record, noise_scale=nk.record_noise_scale(record))
with theme():
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.2), layout="constrained")
nk.plot_training_curve(tree, ax=axes[0])
nk.plot_noise_scale(tree, ax=axes[1])
nk.plot_covariance_spectrum(tree, ax=axes[2])
figure.savefig(FIGURE, dpi=100)
