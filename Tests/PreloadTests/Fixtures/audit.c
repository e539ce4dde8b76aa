// The smallest LD_AUDIT module: it puts a second link-map namespace into the process.
#include <link.h>

unsigned int la_version(unsigned int version) { return version; }
