"""What is trained: losses with their gradients, for many replicates at once."""

from noisekit.problems.base import Problem, SampledProblem
from noisekit.problems.catalog import ProblemInfo, list_problems, load_problem, problem_options
from noisekit.problems.custom import problem_from_path
from noisekit.problems.datasets import Dataset, images_from_folder
from noisekit.problems.gpt import GPT, GPTConfig, next_token_loss
from noisekit.problems.landscapes import EmbeddedSaddle, Quartic, Rosenbrock
from noisekit.problems.linear_regression import LinearRegression, gaussian_linear_regression
from noisekit.problems.models import cnn, mlp, resnet
from noisekit.problems.network import ModelProblem
from noisekit.problems.quadratic import Quadratic

__all__ = [
    "GPT",
    "Dataset",
    "EmbeddedSaddle",
    "GPTConfig",
    "LinearRegression",
    "ModelProblem",
    "Problem",
    "ProblemInfo",
    "Quadratic",
    "Quartic",
    "Rosenbrock",
    "SampledProblem",
    "cnn",
    "gaussian_linear_regression",
    "images_from_folder",
    "list_problems",
    "load_problem",
    "mlp",
    "next_token_loss",
    "problem_from_path",
    "problem_options",
    "resnet",
]
