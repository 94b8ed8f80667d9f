"""Loop of the tutorials: a DataLoader over transforms of one image at a time, tqdm, and `.item()` in each step."""

from __future__ import annotations

import torch
from benchmarks.contestants.clock import Clock
from benchmarks.contestants.workload import BATCH_SIZE, VAL_BATCH_SIZE, Workload, loss_function
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from tqdm import tqdm


def train(workload: Workload, clock: Clock) -> None:
    """Train."""
    torch.manual_seed(workload.seed)
    model = workload.build_model()
    optimizer, scheduler = workload.build_optimizer(model)
    train_loader, val_loader = build_loaders(workload)

    clock.start()
    for epoch in range(1, workload.epochs + 1):
        model.train()
        running_loss = 0.0
        bar = tqdm(train_loader, desc=f"epoch {epoch}")
        for inputs, targets in bar:
            optimizer.zero_grad()
            loss = loss_function(model(inputs), targets)
            loss.backward()
            optimizer.step()
            scheduler.step()
            running_loss += loss.item()
            bar.set_postfix(loss=loss.item())
        accuracy = evaluate(model, val_loader)
        torch.save(model.state_dict(), f"epoch-{epoch}.pt")
        print(f"epoch {epoch}: loss {running_loss / len(train_loader):.4f}, validation accuracy {accuracy:.4f}")
        clock.lap(accuracy)


def evaluate(model: nn.Module, loader: DataLoader) -> float:
    """Return the accuracy."""
    model.eval()
    correct = total = 0
    with torch.no_grad():
        for inputs, targets in tqdm(loader, desc="validation"):
            correct += (model(inputs).argmax(1) == targets).sum().item()
            total += len(targets)
    return correct / total


class ImageDataset(Dataset):
    """Images through a transform, as in torchvision.datasets.FashionMNIST."""

    def __init__(self, images: Tensor, labels: Tensor, transform: transforms.Compose) -> None:
        self.images, self.labels, self.transform = images.permute(0, 2, 3, 1).numpy(), labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index].squeeze())), self.labels[index]


def build_loaders(workload: Workload) -> tuple[DataLoader, DataLoader]:
    """Return loaders of both splits."""
    finish = [transforms.ToTensor(), transforms.Normalize(workload.mean, workload.std)]
    size = workload.train[0].shape[2:]
    crop_flip = [transforms.RandomCrop(size, workload.padding), transforms.RandomHorizontalFlip()]
    train = transforms.Compose([*(crop_flip if workload.padding else []), *finish])
    return (
        DataLoader(ImageDataset(*workload.train, train), BATCH_SIZE, shuffle=True),
        DataLoader(ImageDataset(*workload.val, transforms.Compose(finish)), VAL_BATCH_SIZE),
    )
