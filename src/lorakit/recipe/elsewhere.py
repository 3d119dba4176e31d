"""What other trainers call the keys of a recipe, so that a habit is answered with the right place."""

from __future__ import annotations

_RENAMED = {
    "method.rank": "r lora_r lora_rank lora_dim",
    "method.alpha": "lora_alpha",
    "method.dropout": "lora_dropout",
    "method.targets": "target_modules lora_target_modules lora_target lora_modules",
    "method.last_blocks": "layers_to_transform lora_layers num_layers",
    "method.rslora": "use_rslora",
    "method.dora": "use_dora",
    "method": "lora peft peft_config peft_type adapter lora_config finetuning_type tuner_type",
    "method: {name: freeze, blocks: N}": "freeze_layers num_frozen_layers freeze_trainable_layers unfrozen_parameters",
    "optim": "optimizer optimizer_name",
    "optim.learning_rate": "lr max_lr",
    "optim.schedule": "lr_scheduler_type lr_scheduler scheduler lr_schedule",
    "optim.warmup": "warmup_ratio warmup_fraction",
    "optim.weight_decay": "wd",
    "optim.clip": "max_grad_norm grad_clip gradient_clipping gradient_clip_val clip_grad_norm",
    "optim.beta1": "adam_beta1",
    "optim.beta2": "adam_beta2",
    "optim.epsilon": "adam_epsilon eps",
    "data.max_length": "max_seq_length max_seq_len max_len cutoff_len sequence_len seq_length seq_len block_size "
    "context_length model_max_length max_position",
    "data.train": "dataset datasets dataset_name train_file train_dataset train_data data_path training_data",
    "data.eval": "validation_file eval_file eval_dataset eval_data validation val_set_size test_size val_size "
    "validation_data eval_split",
    "data.columns": "text_column dataset_text_field text_field column_names column_mapping field",
    "data.rows": "max_train_samples max_samples",
    "data.eval_rows": "max_eval_samples",
    "data.stream": "streaming",
    "data.stream_buffer": "shuffle_buffer_size",
    "model": "model_name_or_path model_name base_model pretrained_model_name_or_path checkpoint model_id",
    "model.revision": "model_revision",
    "model.add_tokens": "new_tokens additional_tokens extra_tokens resize_vocab",
    "objective": "task task_type stage",
    "objective.train_on_prompt": "train_on_inputs train_on_input train_on_source",
    "train": "training trainer training_args training_arguments",
    "train.epochs": "num_train_epochs num_epochs n_epochs max_epochs",
    "train.max_steps": "num_steps total_steps iters max_iters",
    "train.micro_batch_tokens": "micro_batch_size micro_batch",
    "train.evaluate_every": "eval_steps eval_interval eval_every steps_per_eval evaluation_strategy eval_strategy",
    "train.save_every": "save_steps save_interval checkpoint_every save_strategy",
    "train.patience": "early_stopping_patience early_stopping",
    "train.seed": "random_seed data_seed random_state",
    "train.gradient_checkpointing": "activation_checkpointing use_gradient_checkpointing",
    "train.trackers": "report_to logger wandb wandb_project",
    "train.device": "device_map accelerator no_cuda use_cpu",
    "train.dropout": "hidden_dropout resid_pdrop attention_dropout",
    "train.dtype: bfloat16": "bf16 precision torch_dtype mixed_precision",
    "speed.varlen": "packing sample_packing group_by_length pad_to_max_length padding",
}
"""What to write here -> the names it has elsewhere."""

_ADVICE = {
    "per_device_train_batch_size batch_size train_batch_size per_device_batch_size gradient_accumulation_steps "
    "accumulate_grad_batches grad_accumulation_steps": "write train.rows_per_step, the rows of one optimizer step: "
    "per_device_train_batch_size × gradient_accumulation_steps × devices.",
    "per_device_eval_batch_size eval_batch_size": "remove it; evaluation finds its own batches.",
    "warmup_steps num_warmup_steps": "write optim.warmup: a share of the optimizer steps, such as 0.06.",
    "fp16": "float16 is not offered. Write train.dtype: bfloat16.",
    "output_dir out_dir output save_dir run_name": "give it on the command line: -o DIR.",
    "resume_from_checkpoint resume": "give it on the command line: --resume.",
    "overwrite_output_dir": "give it on the command line: --force.",
    "load_in_4bit load_in_8bit quantization_config quantization bnb_4bit_quant_type": "write method.quantize_base: "
    "nf4, or int8.",
    "trust_remote_code": "code that comes with a checkpoint is never run. Remove it.",
    "modules_to_save": "not offered: method 'lora' trains its pairs alone. Remove it, or choose method 'freeze'.",
    "label_smoothing label_smoothing_factor": "not offered. Remove it.",
    "logging_steps log_every log_interval": "remove it; every optimizer step goes to metrics.jsonl.",
    "load_best_model_at_end": "remove it; the best evaluation step is always the one kept.",
    "gpus n_gpus num_processes": "remove it; accelerate launch -m lorakit decides on the devices.",
}
"""Names elsewhere -> what to do, where no single key takes their place."""

FOREIGN = {name: f"write {here}." for here, names in _RENAMED.items() for name in names.split()} | {
    name: advice for names, advice in _ADVICE.items() for name in names.split()
}
"""Name in another trainer -> what to do here."""
