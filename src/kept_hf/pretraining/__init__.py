"""What a model learns before coded notes: names (HSAP), notes (masked LM), answering prompts (zero-shot)."""

STAGES = {
    "hsap": "teach an encoder the names of medical concepts and their hierarchy",
    "mlm": "train a masked language model on notes",
    "zero-shot": "teach a model to answer prompts from texts, without a coded note",
}
"""Stage → what it does. `kept-hf pretrain STAGE` is the module `kept_hf.commands.pretrain_…`; the results of a run name
its stage, by which `kept-hf push` finds the card."""
