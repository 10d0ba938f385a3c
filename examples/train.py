"""Fine-tune a model on coded notes: the entry for `accelerate launch`.

    accelerate launch examples/train.py                                   # the demo: synthetic notes
    accelerate launch examples/train.py codiesp --codes rare50 --data_dir path/to/codiesp

It is the command `kept-hf train`; `--help` lists the options.
"""

from kept_hf.commands.train import main

if __name__ == "__main__":
    main()
