from geodinoseg.paths import Paths
def straighten_cut_points(rings: Paths) -> Paths:
    return rings
