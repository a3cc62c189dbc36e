#!/usr/bin/env python3
"""Takes one training step with TRL's SFTTrainer on a dataset's `messages`.

    pip install trl torch transformers datasets
    python scripts/peers/trl_step.py DATASET_DIR MODEL_DIR
"""

import sys
import tempfile

from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer


def main():
    folder, model = sys.argv[1:3]
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    with tempfile.TemporaryDirectory() as work:
        rows = load_dataset(folder, split="train", cache_dir=f"{work}/cache").select_columns(["messages"])
        config = SFTConfig(
            output_dir=f"{work}/out", max_steps=1, per_device_train_batch_size=4, logging_steps=1, use_cpu=True,
            bf16=False, report_to=[], save_strategy="no", max_length=512,
        )
        trainer = SFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(model), args=config, train_dataset=rows,
            processing_class=tokenizer,
        )
        result = trainer.train()
    print(f"one step over {len(rows)} rows: loss {result.training_loss:.4f}")


if __name__ == "__main__":
    main()
