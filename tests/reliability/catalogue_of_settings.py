"""Rules on configuration, artefacts, command line, environment and DICOM: id, letters of the classes, title."""

from __future__ import annotations

SETTINGS = {
    "Configuration": """
B130 R  file that is missing, empty, too large or no UTF-8
B131 R  broken syntax
B132 R  unknown key
B133 R  doubled key
B134 RH one reading of every scalar
B135 R  tags, anchors and too many nodes
B136 R  expressions and import paths
B137 R  unknown kind
B138 R  numbers without sense, such as a negative rate
B139 R  seed out of range
B140 R  patch that the network cannot halve
B141 R  tasks that are none, doubled, or lack their column
B142 R  options that contradict each other
B143 R  device that is not there
B144 W  keys that look like secrets
B145 R  resume with another configuration
B146 R  schema of another version
""",
    "Checkpoints, caches, models": """
B147 R  checkpoint that is missing, cut or too long
B148 R  checkpoint with a flipped bit or edited text
B149 R  headers of tensors that lie
B150 R  pickles and other formats that can hold code
B151 R  tensors that are missing, extra or of another form
B152 R  weights that are not finite
B153 R  checkpoint of another experiment
B154 W  checkpoint without its commit record
B155 R  checkpoint without a part that resume needs
B156 W  resume on another machine or version
B157 F  cache entry that is torn, altered or outdated
B158 R  cache folder that others own or may write to
B159 R  checkpoint that is a link or a device
B160 R  model with unknown metadata
B161 R  file that is far too large
B162 RW model on images unlike its training
""",
    "Command line and environment": """
B163 R  unknown, shortened or doubled options
B164 R  option values that do not parse
B165 R  resume of nothing; output of another run
B166 RH odd arguments: globs, dashes, foreign bytes
B167 H  reader that closes the pipe early
B168 H  plain locale, no terminal
B169 H  private files whatever the umask
B170 H  environment variables weaken nothing
B171 H  files in the working folder are never imported
B172 H  no network is needed
""",
    "DICOM": """
B173 W  foreign files among slices
B174 R  cut files
B175 R  too many pixels
B176 R  several series in a folder
B177 FR doubled slices
B178 R  two slices at one place
B179 R  missing slice
B180 H  order by position
B181 R  tilted gantry
B182 F  scouts among slices
B183 HR enhanced multi-frame files
B184 R  positions that are missing or senseless
B185 HR scaling per slice
B186 R  contradictory pixel formats
B187 R  colour and inverted pixels
B188 R  compression without a decoder
B189 W  lossy compression
B190 R  oversized and deeply nested files
B191 H  directory files that point outside
B192 W  burnt-in names
B193 H  broken character sets
B194 R  patient other than the table's
B195 R  segmentations that do not fit
B196 H  segmentations on every orientation
B197 H  names from headers are never used
""",
}
