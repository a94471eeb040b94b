"""Rules on tables, paths, images, labels and targets: id, letters of the classes, title."""

from __future__ import annotations

FILES = {
    "Cohort table": """
B001 R  table is missing, a folder, or may not be read
B002 R  table without a case
B003 F  byte-order mark at the start
B004 R  table in another encoding than UTF-8
B005 R  another delimiter than the name of the file promises
B006 R  comma as decimal or thousands mark
B007 R  every row wider than the header
B008 R  single rows wider or narrower than the header
B009 R  quotation mark that is never closed
B010 R  control characters in cells
B011 F  blank rows and mixed ends of lines
B012 R  two columns of one name
B013 R  declared column is absent
B014 W  columns that nothing uses
B015 HW ids that look like numbers stay text
B016 R  case or person without an id
B017 R  one id for two cases
B018 W  ids that would be dangerous as file names
B019 R  one image named by two rows
B020 RW equal images under different names
B021 R  one person in two splits
B022 RW nothing says which cases are one person's
B023 RW split that is none of three, or leaves cases out
B024 R  part of the split that would be empty
B025 W  class that a part of the split lacks
B026 F  cells that a spreadsheet would calculate
B027 R  JSON that is none, or another structure
B028 R  JSON with doubled keys or numbers that are none
B029 R  JSON that is too deep or too large
B030 R  another kind of file under a table's name
B031 R  table that changed since training
""",
    "Paths and file system": """
B032 R  file that is not there
B033 H  relative paths start at the table
B034 R  path that leads out of the allowed folders
B035 R  link that leads out, nowhere or in a circle
B036 R  folder, pipe, socket or device in place of a file
B037 R  file that may not be read
B038 H  names with blanks, quotes and signs of every script
B039 H  names that are no UTF-8
B040 R  name spelt in another case or normal form
B041 R  name that is too long
B042 R  run folder that already holds something
B043 R  run folder that would swallow data, home or a repository
B044 R  run folder that cannot be written
B045 R  too little room on the disk
B046 R  too little shared memory
B047 R  input on a drive that stalls
B048 R  output that is an input under another name
B049 W  run folder open to others
""",
    "Images": """
B050 R  empty file, web page, pointer or other type
B051 R  compressed file that is cut off
B052 R  compressed file with a flipped bit
B053 R  compressed file with a wrong checksum or length
B054 R  bytes after the end
B055 R  compression that the name denies, or the reverse
B056 R  fewer voxels than the header promises
B057 R  wrong magic
B058 R  half of a two-file image
B059 H  NIfTI-2 and big-endian files
B060 R  wrong size of the header
B061 R  impossible dimensions
B062 R  dimensions of which no file is that small
B063 R  decompression bomb
B064 R  voxels that would start in the header or past the end
B065 RW unknown or contradictory data type
B066 R  colour and complex images
B067 R  integers beyond the exact range
B068 R  values beyond the range of float32
B069 RH scaling that is not finite; zero means none
B070 R  voxels that are no numbers
B071 R  infinite voxels
B072 R  image of one value
B073 F  superfluous fourth axis
B074 R  more axes than three
B075 R  flat images
B076 RW channel that is missing or of another shape
B077 R  channels on different grids
B078 R  impossible voxel sizes in the header
B079 R  implausible voxel sizes or units
B080 R  voxel sizes that the affine contradicts
B081 R  no declared orientation
B082 R  two orientations that disagree
B083 R  affine that cannot be inverted
B084 R  sheared grid
B085 H  oblique and mirrored grids
B086 H  cohort of mixed orientations
B087 W  voxel size or extent far from the others'
B088 FR image smaller than the patch
B089 R  memory that would not suffice
B090 W  CT that seems rescaled
B091 WH identifying text in headers
B092 R  broken header extensions
B093 R  file that changed since it was recorded
""",
    "Labels": """
B094 WR label that is missing, or a token that is none
B095 R  label of another shape than the image
B096 FR label on another grid than the image
B097 R  label values that are no whole numbers from 0
B098 F  label values that are nearly whole
B099 R  scaling that makes labels fractions
B100 R  label values that nobody declared
B101 R  gaps in the values without a map; the fix shows one
B102 R  ignore value that nobody declared
B103 R  label values beyond the exact range
B104 H  stored type of masks fits the largest value
B105 W  label without a voxel
B106 R  label that no case of training holds
B107 W  label that fills nearly everything
B108 RW one-hot and colour masks; one value for several lesions
B109 RW label that is the image, or another case's
B110 W  label that resampling makes vanish
B111 R  partly drawn labels
""",
    "Targets": """
B112 R  class that is not on the list
B113 R  one class in several spellings
B114 H  order of classes is declared, never accidental
B115 R  class without a case
B116 WR missing target, or a token that is none
B117 W  case without any target
B118 R  several values in one cell
B119 R  number that is none
B120 R  regression target without variation
B121 RW code for "missing" among the values
B122 W  value far from all others
B123 R  impossible survival time
B124 R  event that is neither 0 nor 1
B125 R  nobody had the event
B126 W  everybody had the event
B127 R  time without event, or the reverse
B128 RW mixed units of time
B129 R  target that is also an input
B198 RW several rows of a patient with a survival
""",
}
