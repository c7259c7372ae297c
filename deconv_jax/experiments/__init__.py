"""The paper's table and figures from a trained network, beside their controls: PNG, CSV and JSON in one folder.

table1              effective sizes by the paper's rule, and true receptive fields
figure4             first-layer kernels, each with a measured label
features_layerN     features of a layer for several excerpts (Figures 3 and 5 to 8), trained and before training
figure9             spectrogram of two of the model signals
figure10            how alike images are under a change of key, chord and instrument
signals/            the model signals of Figure 10 with their tables
correlations/       what Figure 10 was computed from; an interrupted run goes on from here
faithfulness, faithfulness/     methods, measures and controls; what each method keeps of some clips, as sound
cues, cues_clips    planted cues: every method's scores against the truth, on average and clip by clip
cues/               their networks, scores and sounds, from which an interrupted run goes on; index.html to hear them
"""
