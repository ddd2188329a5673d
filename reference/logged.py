"""Words for everything that a step leaves in its run: files, metrics and tags. `*` stands for a part that varies."""

# The guide to each command: its title and page.
GUIDES = {
    "main": ("getting started", "start.md"),
    "doctor": ("faults of an image set", "doctor.md"),
    "lr_range": ("training and the range test", "training.md"),
    "probe": ("a folder of photos", "photos.md"),
    "sweep": ("sweeps", "sweeps.md"),
    "train": ("training and the range test", "training.md"),
    "evaluate": ("training and the range test", "training.md#evaluation"),
    "explain": ("explaining", "explaining.md"),
    "predict": ("predicting and serving", "predicting.md"),
    "report": ("the MLflow UI", "mlflow_ui.md#the-report"),
    "compare": ("comparing", "comparing.md"),
    "export": ("predicting and serving", "predicting.md#export"),
    "models": ("pretrained networks", "fine_tuning.md#which-networks-there-are"),
    "status": ("resume and outages", "resume.md#what-runs-now"),
    "sync": ("resume and outages", "resume.md#when-the-tracking-server-is-away"),
}

# The modules of pipeline/ that log a step's files.
MODULES = {
    "main": ("steps/plan.py", "steps/seeds.py"),
    "doctor": ("steps/doctor.py", "steps/label_check.py", "steps/label_suggestions.py"),
    "lr_range": ("steps/lr_range.py",),
    "probe": ("steps/outputs.py",),
    "sweep": ("steps/sweep.py",),
    "train": ("steps/train.py", "steps/outputs.py"),
    "evaluate": ("steps/evaluate.py",),
    "explain": ("steps/explain.py",),
    "predict": ("steps/predict.py", "steps/contact_sheet.py"),
    "report": ("steps/report.py",),
    "compare": ("steps/compare.py",),
    "export": ("steps/export.py",),
}

_INPUT = {
    "recipe.json": "the part of the parameters that a good rate depends on",
    "splits.csv": "each image, with its split and class",
    "left_out.csv": "files that cannot be read, with the reason (only if there are any)",
    "weights/*": "`best.safetensors` and `last.safetensors`: the weights of the best and of the last epoch",
}
FILES = {
    "main": {
        "finished_steps.json": "the result of each finished step, from which `resume` continues",
        "seeds.csv": "each seed's numbers (with `num_seeds`)",
    },
    "doctor": {
        "class_counts.csv": "the number of images of each class in each split",
        "class_counts.png": "the same as a chart",
        "left_out.csv": "files that cannot be read, with the reason (only if there are any)",
        "contradictions.csv": "exact copies that stand under two classes (only if there are any)",
        "duplicates.csv": "pairs of equal or nearly equal images; copies under two classes come first",
        "duplicates.png": "the first of these pairs side by side",
        "odd_images.csv": "blank, tiny, blurred, stretched and unusual images and placeholders, with the reason",
        "odd_images.png": "the first of these images",
        "suspect_labels.csv": "labels that contradict the networks; exact copies of another class first",
        "suspect_labels.png": "the first of these images",
        "labels.csv": "all labels to edit, the doubtful ones first; `labels=` reads it (folders only)",
        "label_studio.json": "the same as tasks for Label Studio (folders only)",
        "label_studio.xml": "the labelling configuration for these tasks (folders only)",
    },
    "lr_range": {
        "recipe.json": "the part of the parameters that a good rate depends on, with the ladder",
        "lr_range.csv": "rate, loss and smoothed loss of each update",
        "lr_range.png": "the curves, with the rate that each rule suggests",
        "lr_range.json": "the suggestion, its rule, and why there is none if there is none",
    },
    "probe": _INPUT,
    "sweep": {
        "study.csv": "each trial: parameters, objective, state, duration",
        "patch_size_max_lr.png": "the objective by patch size and peak rate",
    },
    "train": {
        **_INPUT,
        "steps.csv": "rate, momentum and loss of each update",
        "curves.png": "loss, accuracy and rate over the training",
    },
    "evaluate": {
        "predictions.csv": "each test image: true class, predicted class, confidence, group if there are groups",
        "confusion_matrix.csv": "how many images of each class were predicted as each class",
        "confusion_matrix.png": "the same as a picture",
        "confusion_matrix_normalised.png": "the same as shares of each true class",
        "most_confused.csv": "pairs of classes, the most confused first",
        "per_class.csv": "recall, precision and average precision of each class, with 95 % intervals",
        "precision_recall.csv": "precision and recall at each threshold",
        "precision_recall.png": "the same as curves",
        "reliability.csv": "confidence against accuracy, in bins",
        "reliability.png": "the same as a chart",
        "misclassified.png": "images that the network got wrong, the most confident first",
        "thumbnails.csv": "what the small images of the report show",
        "thumbnails.webp": "these small images in one file",
    },
    "explain": {
        "explain/*.png": "`misclassified.png`, `correct.png`: images with their maps; `attention_*.png` for `ultimus`",
        "explain/images.csv": "the explained images: true class, predicted class, confidence",
        "explain/images.webp": "these images, small, in one file",
        "explain/maps.csv": "each map: image, class, and whether it is blank",
        "explain/maps.webp": "these maps, small, in one file",
        "explain/faithfulness.csv": "confidence as more and more pixels are removed",
        "explain/faithfulness.png": "the same as curves",
        "explain/scores.csv": "both measures of each kind of map, with standard errors",
        "explain/randomisation.csv": "how alike the maps stay as the weights become random, part by part",
        "explain/randomisation.png": "the same as a curve",
    },
    "predict": {
        "predictions.csv": "each image: class, confidence, calibrated probability, entropy, distance, next classes",
        "classes.csv": "the number of images predicted as each class",
        "left_out.csv": "files that cannot be read, with the reason (only if there are any)",
        "contact_sheet.png": "the images to doubt first",
    },
    "report": {"report.html": "the page; it is an artifact of the run that it reports on"},
    "compare": {
        "arms.csv": "each compared run with its main numbers",
        "parameters.csv": "the parameters that differ",
        "calibration.csv": "confidence against accuracy of each arm, in bins",
        "calibration.png": "the same as curves",
        "curves.png": "training and validation curves over each other",
        "per_class_*.csv": "which arm is better in which class",
        "mcnemar_*.csv": "McNemar's exact test of each pair of networks",
        "disagreements_*.png": "images that only one of the two has right, with both maps",
    },
    "export": {},
}
# Files whose names the code puts together elsewhere, so that `make docs` cannot find them by itself.
COMPUTED_FILES = {
    "main": {"report.html": "the report of the whole experiment"},
    "sweep": {
        "importances.csv": "how much each parameter matters to the objective",
        "rank_correlation.csv": "how well each epoch predicts the last one",
        "patch_size_max_lr.csv": "the table behind `patch_size_max_lr.png`",
        "*.png": "Optuna's figures: history, importances, slices, contours, parallel coordinates, Pareto front",
    },
    "train": {
        "watch/*": "with `watch_images`: the maps after each epoch, `watch.gif`, and the files of the report's slider",
        "model": "the model to serve: code and safetensors",
    },
    "probe": {"model": "the model to serve: code and safetensors"},
    "predict": {"calibration.safetensors": "temperature and novelty of the training, in the first run only"},
    "export": {"model.onnx, model.pt2": "the exported model, if it agrees with the original"},
}
METRICS = {
    "main": {"*": "the metrics of each step that runs once; with `num_seeds` their means, and deviations as `*_sd`"},
    "doctor": {
        "doctor/imbalance": "images of the largest class over those of the smallest, in train",
        "doctor/unreadable": "files that cannot be read, and photos in formats that are not read",
        "doctor/classes_alike": "classes whose names differ only by case, blanks or Unicode form",
        "doctor/contradictions": "pairs of exact copies under two classes",
        "doctor/duplicates_*_*": "duplicates between two splits, or within one",
        "doctor/odd_images": "odd images",
        "doctor/detail_px, doctor/side_px": "detail and size of most files, on their shorter side (folders only)",
        "doctor/suspect_labels": "suspect labels",
        "doctor/cross_validated_accuracy": "share of train labels that the networks agree with",
    },
    "lr_range": {
        "lr_range/suggestion": "the suggested peak rate",
        "lr_range/valley, lr_range/steepest, lr_range/minimum_over_10": "the rate of each rule",
        "lr_range/spread": "highest over lowest suggestion of the ladders",
    },
    "probe": {
        "train/*, valid/*": "loss and accuracy",
        "cv/accuracy, cv/accuracy_low, cv/accuracy_high": "cross-validated accuracy on the train images, and interval",
        "weights/best_epoch": "1",
        "weights/best_valid_accuracy": "accuracy on the validation images",
    },
    "sweep": {
        "sweep/best_*": "the best value of the first objective",
        "trial/*": "the objective of each trial, at step = its number",
        "flops, train_seconds": "in each trial's own run: arithmetic per image, and seconds of training",
    },
    "train": {
        "train/loss, train/accuracy": "on the augmented train images, a point per epoch",
        "valid/loss, valid/accuracy": "on the validation images, a point per epoch",
        "lr": "the rate at the end of each epoch",
        "images_per_second": "speed of each epoch",
        "weights/best_epoch": "the epoch whose weights are kept as the best",
        "weights/best_valid_accuracy": "its accuracy on the validation images",
        "system/*": "load of processor, memory and graphics cards; `system/state_seconds` to keep the state",
    },
    "evaluate": {
        "test/accuracy, test/accuracy_low, test/accuracy_high": "accuracy, and its 95 % interval",
        "test/accuracy_over_groups_low, test/accuracy_over_groups_high": "the interval over groups, if any",
        "test/groups, test/effective_images": "number of groups; number of independent images that say as much",
        "test/accuracy_*_views*": "the same, averaged over views",
        "test/top*_accuracy": "share of images whose class is among the k likeliest",
        "test/loss, test/macro_f1, test/balanced_accuracy": "cross entropy; mean F1 and mean recall of the classes",
        "test/mean_average_precision": "mean over the classes",
        "test/ece": "expected calibration error",
    },
    "explain": {
        "explain/faithfulness": "mean over the images: how much more the most relevant pixels matter than the least",
        "explain/standard_error": "of that mean",
        "explain/insertion, explain/insertion_error": "confidence as pixels come, minus that as they go; its error",
        "explain/faithfulness_*, explain/standard_error_*": "for a random map, random weights, and other methods",
        "explain/insertion_*, explain/insertion_error_*": "the same",
        "explain/agreement, explain/agreement_error": "how often both measures prefer the same map; by chance 0.5",
        "explain/randomised_similarity": "rank correlation of the maps with those of random weights",
        "explain/blank_maps": "number of blank maps",
    },
    "predict": {
        "predict/images, predict/left_out": "images answered for, and files that cannot be read",
        "predict/unlike_training": "images unlike the training images",
        "predict/images_per_second": "speed",
        "calibration/*": "temperature, calibration error before and after, distance limit",
    },
    "report": {},
    "compare": {
        "compare/*/accuracy": "mean accuracy of each arm",
        "compare/*/*": "difference to the first arm, its intervals over images, groups and seeds, p values, and the "
        "smallest detectable difference",
    },
    "export": {
        "export/largest_difference": "between the file's probabilities and the model's",
        "export/bytes": "size of the file",
    },
}
_START = {
    "weights": "the weights that the run starts from",
    "weights.source": "where these weights come from: repository, address, file or run",
    "weights.licence": "the licence that their publisher states, or `not stated`",
}
TAGS = {
    "lr_range": _START,
    "probe": _START,
    "sweep": _START,
    "train": {
        "recipe": "fingerprint of the recipe: a range test of the same fingerprint suggests the rate",
        "lr_range.run_id": "the range test that suggested the rate",
        "data.digest": "fingerprint of all images and labels",
        "device, precision, machine, git.commit": "where and with what code the run was made",
        **_START,
    },
    "evaluate": {
        "train.run_id": "the training that was evaluated",
        "test.digest": "fingerprint of the test images: only equal ones are compared",
    },
}
