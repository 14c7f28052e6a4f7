"""What `bbframe push --help` and `bbframe serve --help` print."""

PUSH_HELP = """A trained network on the Hub: backbone, head, preprocessing, class names, and a model card.

usage: bbframe push run=<run folder> repo=user/name [key=value] ...

  run=...           a run folder, a checkpoint, a folder that save_pretrained wrote, or an id on the Hub
  repo=user/name    the repository, which is made; user is you or an organisation of yours
  private=false     true lets only its owner see it
  folder=...        write everything there, and send nothing; look at README.md before it is published
  licence=...       an identifier of the Hub's list, such as apache-2.0; none is stated unless said
  branch=...        another than main; made if need be
  message=...       of the commit
  overwrite=false   true adds a commit to a repository that exists, or replaces the files in the folder

flags:
  --plugin MODULE   a Python module with parts of your own, which the run used

The card states what the run's record holds: metrics on the test images with 95 % intervals, calibration, classes,
counts of images, the command, versions. Paths of this machine, names of runs and secrets are left out. The names of
the classes are published.

The token is the one of `hf auth login`, or the value of HF_TOKEN. It is sent to huggingface.co; another Hub, which
HF_ENDPOINT names, is sent the value of HF_TOKEN alone.

examples:
  bbframe push run=outputs/classification/<run> folder=card licence=apache-2.0
  bbframe push run=outputs/classification/<run> repo=anna/flowers private=true licence=apache-2.0"""

SERVE_HELP = """A page on this machine to drop images on: classes with probabilities, or boxes and masks.

usage: bbframe serve run=<run folder> [port=7860] [host=127.0.0.1] [device=auto]

  run=...           a run folder, a checkpoint, a folder that save_pretrained wrote, or an id on the Hub
  port=7860         of the page
  host=127.0.0.1    for this machine alone; 0.0.0.0 lets everybody in your network use it
  device=auto       or cpu, cuda

flags:
  --plugin MODULE   a Python module with parts of your own, which the run used

It needs gradio: pip install 'bbframe[serve]'. Images stay on this machine. Programs call it as gradio's API "predict".

example:
  bbframe serve run=outputs/classification/<run>"""
