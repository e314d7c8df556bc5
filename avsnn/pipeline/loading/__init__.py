"""From caches or shards to batches, in an order that seed and epoch alone decide."""
