"""The highest mean flow of three rivers: apps that wait for one another."""
import parsl
from parsl import python_app
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider

workers = HighThroughputExecutor(max_workers_per_node=2, address="127.0.0.1", provider=LocalProvider())
parsl.load(Config(executors=[workers]))


@python_app
def read(river):
    return {"aare": [310, 302, 297], "inn": [98, "n/a", 105], "rhone": [441, 439, 460]}[river]


@python_app
def mean(flows):
    return sum(flows) / len(flows)


@python_app
def highest(*means):
    return max(means)


means = [mean(read(river)) for river in ("aare", "inn", "rhone")]
print("highest mean flow:", highest(*means).result(), "m3/s")
