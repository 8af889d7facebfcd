# Runs a command as Bob would: in his directory, with a store of his own, on a machine with another name.
cd ../bob
export DRYSTONE_STORE="$PWD/../bob-store" DRYSTONE_MACHINE=bobs DRYSTONE_BUILDER=bob
exec "$@"
