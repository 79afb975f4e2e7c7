"""README's calls in Python: train with a defense, save, load, predict, audit; compare defenses."""

import relaxloss as rl

data = rl.data.load("digits")  # or rl.data.from_frame(frame, label="outcome") of a DataFrame
recipe = rl.Recipe(epochs=5, milestones=(3,))
trained = rl.train(data, defense=rl.defenses.RelaxLoss(alpha=0.5), recipe=recipe, seed=None)  # None: a secret one
trained.save("model")  # safetensors and JSON, no pickle; model/private is yours alone
loaded = rl.Trained.load("model")
log_p = loaded.predict_log_proba(data.x[:5])  # (5, 10); of a model of a table: give a DataFrame
print(loaded.predict(data.x[:5]))  # the classes, by name where your labels have names
print(rl.audit_model(loaded, data).worst["auc"])  # shadows=32 for the strongest attacks

experiment = rl.Experiment("digits", defenses=("none", "relaxloss:alpha=0.5"), attacks=("loss",), recipe=recipe)
result = rl.compare(experiment, out="runs/digits")
print(result.rows)  # the tidy table, also in runs/digits/results.csv
