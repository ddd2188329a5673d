"""The classes of photos, on a Spark cluster: spark-submit THIS models:/NAME@champion FOLDER RESULT."""

import sys

import mlflow
from pyspark.sql import SparkSession
from pyspark.sql.functions import struct

SETTINGS = {
    # Photos that a worker has in memory at a time, encoded and decoded.
    "spark.sql.execution.arrow.maxRecordsPerBatch": 64,
    # Spark fills a task with 128 MiB of files. By default, it counts 4 MiB for each file beside its bytes.
    "spark.sql.files.openCostInBytes": 65536,
}


def classes(spark, model, folder):
    """A table with a row for each photo below `folder`: its path, and the columns of the model's answer."""
    for name, value in SETTINGS.items():
        spark.conf.set(name, value)
    source = spark.read.format("binaryFile").option("recursiveFileLookup", True)
    photos = source.option("pathGlobFilter", "*.{jpg,jpeg,png,webp,JPG,JPEG,PNG,WEBP}").load(folder)
    answer = mlflow.pyfunc.spark_udf(spark, model, env_manager="local", params={"allow_unreadable": True})
    answered = photos.select("path", answer(struct(photos["content"].alias("image"))).alias("answer"))
    return answered.select("path", "answer.*")


if __name__ == "__main__":
    model, folder, result = sys.argv[1:]
    classes(SparkSession.builder.getOrCreate(), model, folder).write.parquet(result)
